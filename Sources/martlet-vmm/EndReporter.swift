import DeviceService
import Machine
import VMMControl
import Virtio

/// Reports the machine's end to the host. Belongs to the loop's thread.
final class EndReporter: @unchecked Sendable {
    private let control: ControlSocket
    /// The console, whose output goes out before the report.
    var console: ConsoleBackend?

    init(_ control: ControlSocket) { self.control = control }

    /// Lets the console's reader have what the guest printed last, then reports the end.
    func report(_ end: MachineEnd) {
        console?.finish(milliseconds: 200)
        control.report(.ended(MachineStop(end), reason: "\(end)"))
    }
}

extension MachineStop {
    fileprivate init(_ end: MachineEnd) {
        self =
            switch end {
            case .poweredOff: .poweredOff
            case .reset: .reset
            case .tripleFault: .tripleFault
            case .halted: .halted
            case .rootImageWritten, .unhandled: .unhandled
            }
    }
}
