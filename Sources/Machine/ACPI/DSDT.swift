/// The devices of a machine and its states of sleep, in AML.
enum DSDT {
    static func content(_ configuration: ACPIConfiguration) throws(MachineError) -> AML {
        var devices: [AML] = []
        for (number, device) in configuration.virtioDevices.enumerated() { devices.append(try virtio(number, device)) }
        if let port = configuration.serialPort { devices.append(serial(port)) }
        let processors = Processors(configuration)
        devices += processors.devices
        devices += [
            powerButton, generation(configuration.generationID), events(gsi: configuration.eventGSI, processors),
        ]
        return AML.scope("\\_SB", devices) + powerOff
    }

    /// Linux's and Debian's virtio-mmio driver finds its devices by this identifier.
    private static func virtio(
        _ number: Int, _ device: ACPIConfiguration.VirtioDevice
    ) throws(MachineError) -> AML {
        let size = ACPIConfiguration.VirtioDevice.size
        guard number < 256, let address = UInt32(exactly: device.address), address <= UInt32.max - size else {
            throw MachineError("ACPI: virtio device \(number) at \(device.address) has no name, or is beyond 4 GiB")
        }
        let digits = String(number, radix: 16, uppercase: true)
        return .device(
            "VR" + (digits.count == 1 ? "0" : "") + digits,
            [
                .name("_HID", .string("LNRO0005")),
                .name("_UID", .integer(UInt64(number))),
                .name("_CRS", .resources([.memory(address: address, size: size), .interrupt(gsi: device.gsi)])),
            ])
    }

    private static func serial(_ serial: ACPIConfiguration.SerialPort) -> AML {
        .device(
            "COM1",
            [
                .name("_HID", .eisaID("PNP0501")),
                .name("_UID", .zero),
                .name("_CRS", .resources([.ports(serial.port, count: 8), .interrupt(gsi: serial.gsi)])),
            ])
    }

    private static let powerButton = AML.device("PWRB", [.name("_HID", .eisaID("PNP0C0C"))])

    /// A driver finds the device by its compatible identifier, and the 16 bytes by ADDR, the halves of their address
    /// (Microsoft, "Virtual Machine Generation ID").
    private static func generation(_ address: UInt64) -> AML {
        .device(
            "VGEN",
            [
                .name("_HID", .string("MRTL0001")),
                .name("_CID", .string("VM_Gen_Counter")),
                .name("_DDN", .string("VM_Gen_Counter")),
                .name("ADDR", .package([.integer(address & 0xFFFF_FFFF), .integer(address >> 32)])),
            ])
    }

    /// The generic event device (ACPI 6.3, 5.6.9): at its interrupt a guest runs _EVT, which reads the event register
    /// once, as that clears it, and passes the events on. 0x80 is "pressed" to a button, "changed" to the identifier.
    private static func events(gsi: UInt32, _ processors: Processors) -> AML {
        func pass(_ event: ACPIEvents, to path: String) -> AML {
            .if(.and(.local0, .integer(UInt64(event.rawValue))), [.notify(path, 0x80)])
        }
        return .device(
            "GED",
            [
                .name("_HID", .string("ACPI0013")),
                .name("_UID", .zero),
                .name("_CRS", .resources([.interrupt(gsi: gsi)])),
                .operationRegion("EVRG", .ports, at: UInt64(ACPIPort.event), size: 1),
                .byteField("EVRG", ["EVNT"]),
                .method(
                    "_EVT", arguments: 1,
                    [
                        .store(.path("EVNT"), in: .local0),
                        pass(.powerButton, to: "\\_SB.PWRB"),
                        pass(.generation, to: "\\_SB.VGEN"),
                    ] + processors.pass),
            ])
    }

    private static let powerOff = AML.name(
        "\\_S5", .package([.integer(UInt64(ACPISleep.powerOffType)), .zero, .zero, .zero]))
}
