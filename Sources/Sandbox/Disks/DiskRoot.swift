public import Hypervisor

extension SandboxPlan {
    /// A root file system that the guest makes of disks.
    public struct DiskRoot: Sendable, Equatable, Codable {
        public var disks: [Disk]
        /// What the agent mounts, in this order; the last one is the root.
        public var mounts: [GuestMount]
        /// Whether the container can't write there, whatever its configuration says.
        public var readOnly: Bool
    }

    /// Something that the agent mounts for a container's root.
    public struct GuestMount: Sendable, Equatable, Codable {
        public enum Kind: Sendable, Equatable, Codable {
            /// A file system on a disk: on parts of it, the first of which has it, and the others are its further devices; none: on the whole.
            case disk(id: String, type: String, parts: [DiskPart])
            /// Absolute paths in the guest, the uppermost first. Without `upper` and `work` nobody can write there.
            case overlay(lower: [String], upper: String, work: String)
            /// A tmpfs of the guest.
            case memory
            /// An absolute path in the guest.
            case bind(path: String)
        }

        public var kind: Kind
        /// As the specification has them.
        public var options: [String] = []
        /// Made before it is mounted, where they are missing.
        public var directories: [GuestDirectory] = []
        public var readOnly = false
        /// Where the agent makes it available in the guest.
        public var mountPoint: String
    }

    /// Bytes of a disk.
    public struct DiskPart: Sendable, Equatable, Codable {
        public var offset: UInt64
        public var length: UInt64
    }

    /// A directory in the guest.
    public struct GuestDirectory: Sendable, Equatable, Codable {
        /// Absolute.
        public var path: String
        public var mode: UInt32 = 0o755
        public var uid: UInt32 = 0
        public var gid: UInt32 = 0
    }
}

extension SandboxPlan.Container {
    /// The disks that it needs, each once.
    public var disks: [Disk] {
        var seen: Set<String> = []
        let all = (root?.disks ?? []) + volumes.map(\.disk) + blockDevices.map(\.disk)
        return all.filter { seen.insert($0.id).inserted }
    }
}
