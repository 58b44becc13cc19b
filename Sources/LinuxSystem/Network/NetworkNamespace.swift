import CLinux
import Glibc

/// A network namespace (network_namespaces(7)). It is gone with this value unless something else refers to it.
public final class NetworkNamespace: Sendable {
    public let descriptor: SharedDescriptor

    /// The namespace that `path` names, such as /run/netns/x or /proc/1/ns/net.
    public init(path: String) throws(SystemError) {
        descriptor = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY))
    }

    /// Whether `path` names a network namespace (ioctl_ns(2), `NS_GET_NSTYPE`).
    public static func isOne(at path: String) -> Bool {
        guard let file = try? OwnedDescriptor.open(path, O_RDONLY | O_NONBLOCK) else { return false }
        return martlet_ioctl_int(file.raw, namespaceType, 0) == CLONE_NEWNET
    }

    /// `NS_GET_NSTYPE` of linux/nsfs.h: `_IO(0xb7, 3)`.
    private static let namespaceType: UInt = 0xb703

    public var identity: NamespaceIdentity? { NamespaceIdentity(of: descriptor) }

    private init(_ descriptor: SharedDescriptor) { self.descriptor = descriptor }

    /// Creates a network namespace. Its `lo` is down.
    public static func make() throws(SystemError) -> NetworkNamespace {
        let descriptor = try onOwnThread { () throws(SystemError) in
            try check("unshare", "network namespace", martlet_new_network())
            return SharedDescriptor(try OwnedDescriptor.open("/proc/thread-self/ns/net", O_RDONLY))
        }
        return NetworkNamespace(descriptor)
    }

    /// Runs `body` on a new thread inside the namespace and waits for it.
    ///
    /// Sockets and taps that `body` creates stay in the namespace, whoever uses them later.
    public func run<R: Sendable>(_ body: @Sendable @escaping () throws(SystemError) -> R) throws(SystemError) -> R {
        let descriptor = descriptor
        return try Self.onOwnThread { () throws(SystemError) in
            try check("setns", "network namespace", martlet_enter_network(descriptor.raw))
            return try body()
        }
    }

    /// Runs `body` on a new thread, because a thread that has changed its namespace must not be used for other work.
    private static func onOwnThread<R: Sendable>(
        _ body: @Sendable @escaping () throws(SystemError) -> R
    ) throws(SystemError) -> R {
        let done = try Promise<Result<R, SystemError>>()
        try startThread("network") {
            do throws(SystemError) {
                done.settle(.success(try body()))
            } catch {
                done.settle(.failure(error))
            }
        }
        while true { if let result = done.wait() { return try result.get() } }
    }
}
