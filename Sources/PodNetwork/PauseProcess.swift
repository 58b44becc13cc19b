import Glibc
public import LinuxSystem

/// A process that lives in the pod's network namespace and does nothing else. Engines see its pid as the pod's, and use it to
/// find the namespace. It has no privileges. It ends with the process that started it, and when the value is released.
public final class PauseProcess: Sendable {
    /// The name of the process in messages and in the pod's state.
    public static let name = "martlet-device pause"
    /// How long it may take to enter the namespace, milliseconds.
    private static let startTimeout: Int32 = 10_000

    private let child: ChildProcess
    public var pid: pid_t { child.pid }

    /// Starts the process, and returns when it is in the namespace.
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
        guard poll(&item, 1, Self.startTimeout) == 1, read(ready.raw, &byte, 1) == 1 else {
            child.signal(SIGKILL)
            throw SystemError("enter the network namespace", "process \(child.pid)", errno: .timedOut)
        }
    }

    /// Suspends until the process has ended, for whatever reason.
    public func ended() async -> ProcessEnd { await child.end() }

    /// Ends the process and waits until it is gone.
    public func end() {
        child.signal(SIGKILL)
        _ = child.waitForEnd(timeout: .seconds(5))
    }

    deinit { child.signal(SIGKILL) }
}
