/// The machine's ACPI registers, a byte each, where no PC has had devices.
enum ACPIPort {
    /// Takes `ACPISleep.powerOff` when the guest turns itself off. Reads as 0.
    static let sleepControl: UInt16 = 0x600
    /// A guest clears bit 7 before it sleeps. Reads as 0: the machine never wakes.
    static let sleepStatus: UInt16 = 0x601
    /// `resetValue` restarts the machine.
    static let reset: UInt16 = 0x602
    static let resetValue: UInt8 = 1
    /// The `ACPIEvents` since it was last read; reading clears it.
    static let event: UInt16 = 0x604
    /// The first vCPU's `ACPICPUStatus`; those of the others follow.
    static let processors: UInt16 = 0x680
}
