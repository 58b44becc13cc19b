import Glibc
public import LinuxSystem

/// A process that lives in the pod's network namespace and does nothing: engines see its pid as the pod's, and find the
/// namespace by it. It has no privileges, ends with the process that started it, and with this value.
public final class PauseProcess: Sendable {
    /// What the process is called in messages and in the pod's state.
    public static let name = "martlet-device pause"
    /// How long it may take until it is in the namespace.
    private static let patience: Int32 = 10_000

    private let child: ChildProcess
    public var pid: pid_t { child.pid }

    /// Starts it, and returns when it is in the namespace.
    ///
    /// - Parameter executable: the absolute path of `martlet-device`.
    public init(_ namespace: NetworkNamespace, executable: String) throws(SystemError) {
        let ready: SharedDescriptor
        (child, ready) = try ChildProcess.withPipe(
            Self.name,
            .init(
                executable: executable, arguments: ["pause"],
                descriptors: [-1, -1, 2, namespace.descriptor.raw, ChildProcess.pipe], newSession: true,
                diesWithParent: true))
        var item = pollfd(fd: ready.raw, events: Int16(POLLIN), revents: 0)
        var byte: UInt8 = 0
        guard poll(&item, 1, Self.patience) == 1, read(ready.raw, &byte, 1) == 1 else {
            child.signal(SIGKILL)
            throw SystemError("enter the network namespace", "process \(child.pid)", errno: .timedOut)
        }
    }

    /// Suspends until it has ended, whoever ended it.
    public func ended() async -> ProcessEnd { await child.end() }

    /// Ends it, and waits until it is gone.
    public func end() {
        child.signal(SIGKILL)
        _ = child.waitForEnd(timeout: .seconds(5))
    }

    deinit { child.signal(SIGKILL) }
}
