/// What a machine's ACPI tables describe.
struct ACPIConfiguration: Sendable, Equatable {
    /// A virtio-mmio register block and its interrupt.
    struct VirtioDevice: Sendable, Equatable {
        static let size: UInt32 = 0x1000

        /// Guest-physical, below 4 GiB.
        var address: UInt64
        /// The input of the IOAPIC.
        var gsi: UInt32
    }

    /// A 16550 on ports, for a console before any virtio driver is there.
    struct SerialPort: Sendable, Equatable {
        /// Eight ports from here on.
        var port: UInt16
        var gsi: UInt32
    }

    /// vCPUs, with the local APIC ids from 0 on.
    var cpuCount: Int
    /// How many there can be while the machine runs: those beyond `cpuCount` are plugged later.
    var maximumCPUCount: Int
    var virtioDevices: [VirtioDevice]
    /// Guest-physical address of the 16 bytes of the VM generation identifier.
    var generationID: UInt64
    /// The interrupt of the generic event device: a rising edge makes the guest read `ACPIPort.event`.
    var eventGSI: UInt32
    var serialPort: SerialPort?
}

/// The value that a guest writes to the sleep control register to turn the machine off (ACPI 6.3, 4.8.3.7).
enum ACPISleep {
    /// What \_S5 names for its sleep type, bits 2 to 4 of the register.
    static let powerOffType: UInt8 = 5
    private static let enable: UInt8 = 1 << 5
    static let powerOff: UInt8 = powerOffType << 2 | enable
}

/// The events that the generic event device reports to a guest.
struct ACPIEvents: OptionSet, Sendable {
    let rawValue: UInt8

    static let powerButton = ACPIEvents(rawValue: 1 << 0)
    /// The VM generation identifier is a new one: this machine was restored from another's snapshot.
    static let generation = ACPIEvents(rawValue: 1 << 1)
    /// A vCPU has come, or is to go: its `ACPICPUStatus` tells.
    static let processors = ACPIEvents(rawValue: 1 << 2)
}

/// A vCPU's register, as the guest reads and writes it. What a guest does about it is in the DSDT's methods.
struct ACPICPUStatus: OptionSet, Sendable {
    let rawValue: UInt8

    /// Read: the vCPU is there.
    static let present = ACPICPUStatus(rawValue: 1 << 0)
    /// Read: it has come; written: the guest has seen that.
    static let inserting = ACPICPUStatus(rawValue: 1 << 1)
    /// Read: it is to go; written: the guest has seen that.
    static let removing = ACPICPUStatus(rawValue: 1 << 2)
    /// Written: the guest has let go of it.
    static let ejected = ACPICPUStatus(rawValue: 1 << 3)
}
