import Glibc
import LinuxSystem
import Synchronization

/// The machine's switches, as the ACPI tables describe them: sleep control, reset, and the events of the generic event
/// device (ACPI 6.5, 4.8.3.7 and 5.6.9).
final class PowerControl: BusDevice, @unchecked Sendable {
    static let ports = UInt64(ACPIPort.sleepControl)..<UInt64(ACPIPort.event) + 4

    /// Signals the generic event device's interrupt.
    let interrupt: SharedDescriptor
    private let pending = Atomic<UInt8>(0)
    private let onEnd: @Sendable (MachineEnd) -> Void

    init(onEnd: @escaping @Sendable (MachineEnd) -> Void) throws(SystemError) {
        interrupt = try SharedDescriptor.event()
        self.onEnd = onEnd
    }

    /// Tells the guest of an event.
    func raise(_ event: ACPIEvents) {
        pending.bitwiseOr(event.rawValue, ordering: .sequentiallyConsistent)
        interrupt.signal()
    }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        // Reading takes the events.
        if port(offset) == ACPIPort.event { data[0] = pending.exchange(0, ordering: .sequentiallyConsistent) }
    }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        switch (port(offset), data[0]) {
        case (ACPIPort.sleepControl, ACPISleep.powerOff): onEnd(.poweredOff)
        case (ACPIPort.reset, ACPIPort.resetValue): onEnd(.reset)
        default: break
        }
    }

    private func port(_ offset: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: Self.ports.lowerBound + offset) }
}
