import CLinux
import Glibc
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

/// The descriptors that a process's streams are tied to, and the terminal behind them if it has one.
final class TerminalSession: Sendable {
    /// Whether the process gets a terminal.
    let isRequested: Bool
    /// What the process gets as stdin, stdout and stderr.
    let stdio: [SharedDescriptor]
    /// The person's terminal, raw while the process runs.
    private let own: Terminal?

    /// - Throws: `SandboxError.invalid` when a console socket is given without a terminal, or the other way round where
    ///   no terminal is at hand.
    init(isRequested: Bool, consoleSocket: String?, isDetached: Bool) throws {
        self.isRequested = isRequested
        if let consoleSocket {
            guard isRequested else {
                throw SandboxError.invalid("--console-socket: the process has no terminal (process.terminal, --tty)")
            }
            let (master, slave) = try Terminal.pair()
            try Terminal.send(master, name: "/dev/ptmx", to: consoleSocket)
            stdio = [slave, slave, slave]
            own = nil
        } else {
            if isRequested, isDetached {
                throw SandboxError.invalid(
                    "cannot allocate tty if the command detaches without --console-socket (process.terminal, --tty)")
            }
            stdio = try (0...2).map { number in
                let copy = martlet_fcntl_int(Int32(number), F_DUPFD_CLOEXEC, 3)
                // One that is closed here is /dev/null there.
                return SharedDescriptor(
                    copy < 0 ? try OwnedDescriptor.open("/dev/null", O_RDWR) : OwnedDescriptor(owning: copy))
            }
            own = isRequested ? Terminal.ofCaller() : nil
            if isRequested && own == nil {
                throw SandboxError.invalid(
                    "process.terminal is true in config.json, but no standard stream is a terminal, and there is no controlling "
                        + "one: give one, or --console-socket")
            }
        }
    }

    /// The metadata of a request that makes a process: its terminal leaves line feeds as they are, as with runc. The person's terminal makes
    /// new lines of them, and a pipe gets them alone.
    static let lineFeedsKey = "martlet.line-feeds"
    var metadata: TTRPCMetadata { own == nil ? [:] : [Self.lineFeedsKey: "kept"] }

    /// The size of the person's terminal, in characters; nil: there is none.
    var size: (width: UInt32, height: UInt32)? { own?.size }

    func begin() { own?.makeRaw(makesNewLines: true) }
    func end() { own?.restore() }

    /// Gives a process's terminal the size of the person's. A terminal that was made for an engine tells the container's process on
    /// the host of its size.
    ///
    /// - Parameter exec: empty: the container's first process.
    func resize(_ task: TaskServiceClient, container: String, exec: String = "") async {
        guard let size = own?.size else { return }
        _ = try? await task.resizePty(
            .with {
                $0.id = container
                $0.execID = exec
                ($0.width, $0.height) = size
            }, timeout: .seconds(10))
    }
}
