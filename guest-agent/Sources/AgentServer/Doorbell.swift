import AgentContract
import CAgent
import GuestSystem
import LinuxSystem

/// Tells the host that the agent listens; see `AgentDoorbell`.
enum Doorbell {
    /// Writes to the I/O port that the kernel's command line names; does nothing where it names none.
    ///
    /// - Parameters:
    ///   - commandLine: as /proc/cmdline has it.
    ///   - write: writes a byte to an I/O port; answers 0 or an errno.
    static func ring(
        _ commandLine: String, write: (UInt16, UInt8) -> Int32 = martlet_agent_write_port
    ) {
        guard let port = AgentDoorbell.port(in: commandLine) else { return }
        let result = write(port, AgentDoorbell.ready)
        if result == 0 { return }
        // The host connects without it, only later.
        let error = SystemError("ring the doorbell", "I/O port \(port)", errno: .init(rawValue: result))
        Console.report("\(error)")
    }
}
