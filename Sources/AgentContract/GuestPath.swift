/// Paths in the guest that both sides name.
public enum GuestPath {
    /// What the host and the agent make in the guest lies below it.
    public static let base = "/run/martlet"
    /// Where the agent mounts the file device.
    public static let shares = "\(base)/shares"
    /// The volumes in the guest's memory.
    public static let volumes = "\(base)/volumes"
    /// The volume of the programs that `martlet pod shell` brings; no volume of a pod has its name.
    public static let toolsVolume = "martlet-tools"
    /// Where that is.
    public static let tools = "\(volumes)/\(toolsVolume)"
    /// A directory for each container.
    public static let containers = "\(base)/containers"
    /// The namespaces that the containers of a pod share: `ipc`, `uts`, and `pid`, which is made when the first container asks
    /// for it.
    public static let sandboxNamespaces = "\(base)/sandbox/ns"
    /// The namespaces of a container that another one joins: `pid`. No file is there: the agent finds the container by it.
    public static func namespaces(of container: String) -> String { "\(containers)/\(container)/ns" }

    /// The shared memory of the sandbox.
    public static let sharedMemory = "/dev/shm"

    /// Where a container's root file system is mounted.
    public static func rootfs(of container: String) -> String { "\(containers)/\(container)/rootfs" }

    /// Where a layer of a container's root file system is mounted.
    ///
    /// - Parameter index: of the mount in `rootfs` of the engine's request, or behind them.
    public static func layer(_ index: Int, of container: String) -> String {
        "\(containers)/\(container)/layers/\(index)"
    }

    /// Where the source of a container's mount is mounted.
    ///
    /// - Parameter index: of the mount in `mounts` of the container's config.json.
    public static func mount(_ index: Int, of container: String) -> String {
        "\(containers)/\(container)/mounts/\(index)"
    }
}

/// The device that shows directories of the host in the guest.
public enum ShareDevice {
    /// Its virtiofs tag (virtio 1.2, 5.11.4).
    public static let tag = "martlet"
}

/// What a storage of `CreateContainer` is.
public enum StorageDriver: String, Sendable, CaseIterable {
    /// A directory or file of the host, by its name on the file device.
    case share
    /// A file system on a disk of the machine, by the disk's serial number.
    case block
    /// A volume that `MakeVolume` made, by its name.
    case volume
    /// A stack of directories.
    case overlay
    /// A tmpfs of its own.
    case memory
    /// Another place for a directory.
    case bind
    /// A disk as a block device, by its serial number.
    case device
}
