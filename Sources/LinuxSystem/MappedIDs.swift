import CLinux

/// Which ids of a file system stand for which others in a mount of it (mount_setattr(2), "ID-mapped mounts").
public struct MappedIDs: Sendable, Equatable, Codable {
    /// As many ids from `first` on as `count` says become those from `becomes` on.
    public struct Range: Sendable, Equatable, Codable {
        public var first: UInt32
        public var becomes: UInt32
        public var count: UInt32

        /// - Parameters:
        ///   - first: in the file system.
        ///   - becomes: in the mount.
        ///   - count: how many.
        public init(first: UInt32, becomes: UInt32, count: UInt32) {
            (self.first, self.becomes, self.count) = (first, becomes, count)
        }
    }

    public var users: [Range]
    public var groups: [Range]

    public init(users: [Range], groups: [Range]) { (self.users, self.groups) = (users, groups) }

    /// The same for equal maps, and a file name.
    public var name: String { "ids-\(textHash("\(Self.text(users));\(Self.text(groups))"))" }

    /// Gives a mount that is attached nowhere these ids.
    ///
    /// - Parameters:
    ///   - tree: the mount.
    ///   - name: of what it is a mount of, for errors.
    /// - Throws: also for a file system of which the kernel makes no such mounts (EINVAL).
    public func apply(to tree: SharedDescriptor, _ name: String) throws(SystemError) {
        let namespace = OwnedDescriptor(
            owning: try check(
                "make a user namespace for", name, martlet_user_namespace(Self.text(users), Self.text(groups))))
        try check("mount with mapped ids", name, martlet_mount_idmap(tree.raw, namespace.raw))
    }

    /// As /proc/PID/uid_map has it.
    private static func text(_ ranges: [Range]) -> String {
        ranges.map { "\($0.first) \($0.becomes) \($0.count)\n" }.joined()
    }
}
