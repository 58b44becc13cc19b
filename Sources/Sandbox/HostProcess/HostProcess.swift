import CLinux
import Glibc
import Hypervisor
import Jail
import LinuxSystem
import PodNetwork
import VMMControl

/// A container's process on the host: what engines take for the container's first process, or for an exec's.
///
/// It is in the pod's network namespace, holds the container's standard streams, and ends as the process in the guest ends. When it is
/// killed, that process is killed. It runs `martlet-device container`; the rest of its command line names the container.
package final class HostProcess: Sendable {
    /// What it tells about itself.
    enum Event: Sendable, Equatable {
        /// Somebody has sent it a signal that can be handled.
        case signal(Int32)
        /// In characters.
        case resized(width: UInt32, height: UInt32)
        /// It is gone.
        case ended
    }

    package let pid: pid_t
    private let control: SharedDescriptor

    /// How long it may take to enter a network namespace.
    private static let enterTimeout = Duration.seconds(10)

    /// Takes over a process that its engine's command has started.
    ///
    /// - Parameter control: this side of its control socket.
    init(pid: pid_t, control: SharedDescriptor) { (self.pid, self.control) = (pid, control) }

    /// The words of the command line that starts one.
    ///
    /// - Parameters:
    ///   - exec: the id of a further process of the container; empty: it is the first.
    ///   - pod: nil: it is the pod's own.
    package static func title(container: String, exec: String = "", pod: String) -> [String] {
        ["container", container] + (exec.isEmpty ? [] : ["exec", exec]) + ["pod", pod]
    }

    /// Starts one as a child of this process.
    ///
    /// - Parameters:
    ///   - title: see `title(container:exec:pod:)`.
    ///   - stdio: the descriptors that it holds; -1: /dev/null.
    ///   - isReaped: see `ChildProcess.Command`.
    ///   - executable: the absolute path of `martlet-device`; nil: the one beside this program.
    /// - Returns: the child, and this side of its control socket.
    package static func spawn(
        _ title: [String], stdio: [Int32] = [-1, -1, -1], isReaped: Bool = true, executable: String? = nil
    ) throws -> (child: ChildProcess, control: SharedDescriptor) {
        let (control, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let child = try withExtendedLifetime(theirs) {
            try ChildProcess(
                "container process",
                .init(
                    executable: executable ?? Programs.own("martlet-device"), arguments: title,
                    descriptors: stdio + [theirs.raw],
                    newSession: true, isReaped: isReaped))
        }
        return (child, control)
    }

    /// Starts one that belongs to this process.
    static func start(container: String, pod: String) throws -> HostProcess {
        let (child, control) = try spawn(title(container: container, pod: pod))
        return HostProcess(pid: child.pid, control: control)
    }

    /// Has it enter the pod's network namespace, make a mount namespace of its own, and drop its privileges. Blocks until it has.
    ///
    /// - Parameters:
    ///   - namespace: nil: it stays in the one that it was started in.
    ///   - user: of the pod.
    ///   - files: detached mounts with their paths in its mount namespace, the first at `/`; none: the root is empty.
    /// - Throws: `SandboxError.failed` when it can't, or has ended; the process ends then.
    func enter(
        _ namespace: NetworkNamespace?, user: UInt32 = JailPlan.nobody,
        files: [(path: String, tree: SharedDescriptor)] = []
    ) throws {
        do {
            try check("setsockopt", "SO_RCVTIMEO", setReceiveTimeout(control.raw, Self.enterTimeout))
            for (path, tree) in files {
                try HostProcessMessage.mount(path: path).send(over: control.raw, descriptor: tree.raw)
            }
            try HostProcessMessage.enter(user: user).send(over: control.raw, descriptor: namespace?.descriptor.raw)
            switch try HostProcessMessage.receive(over: control)?.message {
            case .entered: break
            case .failed(let errno):
                throw SystemError("enter", "network namespace", errno: .init(rawValue: errno))
            default: throw SystemError("enter", "network namespace", errno: .noSuchProcess)
            }
        } catch {
            end(.exited(255))
            throw SandboxError.failed("the container's process on the host (pid \(pid)): \(error)")
        }
        setReceiveTimeout(control.raw, .zero)
    }

    /// What happens to it; `ended` is the last. To be called once, after `enter`, in place of `watch`.
    func events() throws -> AsyncStream<Event> {
        let (events, continuation) = AsyncStream.makeStream(of: Event.self)
        try watch { event in
            continuation.yield(event)
            if event == .ended { continuation.finish() }
        }
        return events
    }

    /// Reports what happens to it, on a thread of its own; `ended` is the last. To be called once, after `enter`.
    func watch(_ report: @Sendable @escaping (Event) -> Void) throws {
        let control = control
        try startThread("container process", stackSize: 64 << 10) {
            while case (let message, _)?? = try? HostProcessMessage.receive(over: control) {
                switch message {
                case .signal(let number): report(.signal(number))
                case .resized(let width, let height) where width > 0 && height > 0:
                    report(.resized(width: UInt32(width), height: UInt32(height)))
                default: continue
                }
            }
            report(.ended)
        }
    }

    /// Ends it in the way that the process in the guest has ended.
    func end(_ end: ProcessEnd) {
        let message: HostProcessMessage =
            switch end {
            case .exited(let code): .exit(code: code & 0xff)
            case .signaled(let signal): .end(signal: signal)
            }
        // One that is gone needs none.
        try? message.send(over: control.raw)
    }
}
