import CAgent
import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// Sends the host's heartbeats back (`StreamNumber.heartbeat`).
enum Pulse {
    /// linux/sched.h
    private static let fifo: UInt32 = 1

    /// Serves a connection to its end, on a thread of its own, which runs before everything else in the guest: a guest whose
    /// containers take all the time they can get still answers.
    static func serve(_ connection: SharedDescriptor) {
        // Outside a guest the agent may not be allowed to.
        _ = martlet_agent_set_scheduler(fifo, 0, 0, 50, 0, 0, 0)
        var number: UInt64 = 0
        while true {
            let count = recv(connection.raw, &number, 8, Int32(MSG_WAITALL))
            if count < 0, Glibc.errno == EINTR { continue }
            guard count == 8, send(connection.raw, &number, 8, Int32(MSG_NOSIGNAL)) == 8 else { return }
        }
    }
}
