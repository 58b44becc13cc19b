import Glibc

/// What tells a namespace from all others of this host, by whichever path it is named (ioctl_ns(2)). Another may get the same
/// when it is gone.
public struct NamespaceIdentity: Hashable, Sendable, Codable {
    public var device: UInt64
    public var inode: UInt64

    /// The namespace that `path` names, such as /run/netns/x or /proc/1/ns/net; nil where nothing is.
    public init?(path: String) {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return nil }
        self.init(facts)
    }

    /// nil for a descriptor that is not open.
    init?(of descriptor: SharedDescriptor) {
        var facts = stat()
        guard fstat(descriptor.raw, &facts) == 0 else { return nil }
        self.init(facts)
    }

    private init(_ facts: stat) {
        device = UInt64(facts.st_dev)
        inode = UInt64(facts.st_ino)
    }

    /// Whether it is the one that this process is in: the host's.
    ///
    /// - Parameter name: of the kind, in /proc/PID/ns: `net`, `pid`.
    public func isHosts(_ name: String) -> Bool { self == Self(path: "/proc/self/ns/\(name)") }
}
