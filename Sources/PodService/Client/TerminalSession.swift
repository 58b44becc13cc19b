import CLinux
import Glibc
import LinuxSystem
import Sandbox
import TaskAPI

/// The descriptors that a foreground container's streams are tied to, and the terminal behind them if it has one.
final class TerminalSession: Sendable {
    /// Whether the bundle asks for a terminal.
    let isRequested: Bool
    /// What the server gets as the process's stdin, stdout and stderr.
    let stdio: [SharedDescriptor]
    /// The person's terminal, raw while the container runs.
    private let own: Terminal?
    /// The host's pseudo-terminal whose size the container's follows.
    private let sizeSource: SharedDescriptor

    /// - Throws: `SandboxError.invalid` when a console socket is given without a terminal, or the other way round where
    ///   no terminal is at hand.
    init(isRequested: Bool, consoleSocket: String?) throws {
        self.isRequested = isRequested
        if let consoleSocket {
            guard isRequested else {
                throw SandboxError.invalid("--console-socket: process.terminal is false in config.json")
            }
            let (master, slave) = try Terminal.pair()
            try Terminal.send(master: master, to: consoleSocket)
            stdio = [slave, slave, slave]
            own = nil
            sizeSource = slave
        } else {
            stdio = try (0...2).map { number in
                let copy = martlet_fcntl_int(Int32(number), F_DUPFD_CLOEXEC, 3)
                // One that is closed here is /dev/null there.
                return SharedDescriptor(
                    copy < 0 ? try OwnedDescriptor.open("/dev/null", O_RDWR) : OwnedDescriptor(owning: copy))
            }
            own = isRequested ? Terminal(STDIN_FILENO) : nil
            sizeSource = stdio[0]
            if isRequested && own == nil {
                throw SandboxError.invalid(
                    "process.terminal is true in config.json, but standard input is not a terminal: give one, or --console-socket"
                )
            }
        }
    }

    func begin() { own?.makeRaw() }
    func end() { own?.restore() }

    /// Gives the container's terminal the size of the one here.
    func resize(_ task: TaskServiceClient, _ id: String) async throws {
        guard isRequested, let size = Terminal.size(of: sizeSource.raw) else { return }
        _ = try await task.resizePty(
            .with {
                $0.id = id
                ($0.width, $0.height) = size
            }, timeout: .seconds(10))
    }
}
