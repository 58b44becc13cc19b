public import Hypervisor
public import LinuxSystem
public import OCISpec

/// All that starting a pod will do, with its first container where it has one from the start, as a value: nothing is started
/// by making one.
public struct SandboxPlan: Sendable, Equatable, Codable {
    /// A file tree of the host that the file device serves.
    public struct Share: Sendable, Equatable, Codable {
        /// Which mounts something holds for.
        public enum Extent: String, Sendable, Codable {
            case none
            /// The mount of the source.
            case top
            /// That one and all below it.
            case all
        }

        /// Absolute path on the host.
        public var source: String
        /// Which mounts the guest sees: with `all` those below the source too.
        public var mounts: Extent
        /// Which of them are read-only; enforced by the file device.
        public var readOnly: Extent
        /// Where the agent makes it available in the guest.
        public var mountPoint: String
        /// The ids of its files in the guest; nil: as they are on the host.
        public var ids: ShareIDs?
        /// Whether what the host mounts below the source later appears in the container too.
        public var propagates = false
    }

    /// How the ids of a share's files are mapped, and in which of its mounts.
    public struct ShareIDs: Sendable, Equatable, Codable {
        public var map: MappedIDs
        public var mounts: Share.Extent

        /// For the mounts below the source; nil: they have the ids of the host.
        var mapBelow: MappedIDs? { mounts == .all ? map : nil }
    }

    /// A disk with a file system that the agent mounts.
    public struct Volume: Sendable, Equatable, Codable {
        public var disk: Disk
        /// The file system's type: `ext4`.
        public var type: String
        /// Options of the mount, as the specification has them.
        public var options: [String]
        /// Where the agent makes it available in the guest.
        public var mountPoint: String
    }

    /// A volume of a Kubernetes pod that is in the guest's own memory, for all containers of the pod that mount it.
    public struct PodVolume: Sendable, Equatable, Codable {
        public enum Kind: String, Sendable, Codable {
            /// A tmpfs of the host becomes one of the guest.
            case memory
            /// What kubelet publishes is copied, and copied again when that changes.
            case copy
        }

        /// The same for each container that mounts it.
        public var name: String
        /// For messages: `configMap settings`.
        public var title: String
        public var kind: Kind
        /// Its directory on the host, an absolute path; empty: it begins empty.
        public var source: String
        /// In bytes; nil: none but the memory of the guest.
        public var size: UInt64?
        /// Permissions and owner of its directory.
        public var mode: UInt32
        public var uid: UInt32
        public var gid: UInt32
        /// What of it the container mounts, relative; empty: all.
        public var part: String
        /// Where the agent makes it available in the guest.
        public var mountPoint: String
    }

    /// A /dev/shm that containers share, in the guest's own memory.
    public struct SharedMemory: Sendable, Equatable, Codable {
        /// Bytes.
        public var size: UInt64
        /// The tmpfs of the host that an engine binds there, by which it is known.
        public var source: String
    }

    /// A container as the agent gets it.
    public struct Container: Sendable, Equatable, Codable {
        public var id: String
        /// Its root file system, where disks have it; nil: one of the shares is it.
        public var root: DiskRoot?
        public var shares: [Share]
        public var volumes: [Volume] = []
        /// Block devices of the host that it gets as disks.
        public var blockDevices: [BlockDevice] = []
        public var podVolumes: [PodVolume] = []
        /// Those of the host that the container mounts.
        public var sockets: [ForwardedSocket] = []
        /// The /dev/shm that it shares with the pod's other containers; nil: it has one of its own, or none.
        public var sharedMemory: SharedMemory?
        /// The bundle's configuration with the root and the sources of bind mounts rewritten to the guest's paths.
        public var spec: Spec
    }

    public var id: String
    /// The driver that will be used, and why.
    public var driver: DriverChoice
    public var hostname: String
    public var network: Network
    /// Whether the guest's frames pass only from the pod's own addresses (`network.source_filter`).
    public var filtersSources = false
    /// The paths by which the engine knows namespaces that it made for the pod's containers.
    public var namespaces: [String] = []
    /// The host's control group for the pod's processes; nil: where the engine is.
    public var cgroup: HostCgroupPath?
    public var cgroupLimits = HostCgroupLimits()
    /// How large the machine is, and why.
    public var sizing: Sizing
    public var machine: VMConfiguration
    public var container: Container?
    /// What the bundle asks for and will not get: one line each.
    public var warnings: [String]
}
