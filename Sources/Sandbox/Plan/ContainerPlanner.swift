import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import OCISpec

extension SandboxPlan.Container {
    /// Plans a container, and says what its bundle asks for and will not get, one line each.
    ///
    /// - Parameters:
    ///   - rootfs: the mounts that make its root file system, where its snapshotter describes them.
    ///   - owners: of namespaces that it names by paths of the host.
    ///   - joinsSandbox: whether its engine has made the pod by itself, with a process in the host's namespaces (`SandboxRequest`).
    /// - Throws: also for what it asks for and may not be run without.
    static func planned(
        id: String, bundle: Bundle, rootfs: [RootMount] = [], _ configuration: Configuration,
        owners: [String: NamespaceOwner] = [:], joinsSandbox: Bool = false
    ) throws -> (SandboxPlan.Container, warnings: [String]) {
        let id = try ContainerID(id).value
        var bundle = bundle
        bundle.spec.linux?.join(owners)
        if joinsSandbox { bundle.spec.linux?.joinSandboxForHosts() }
        bundle.spec.linux?.removeHostsNamespaces()
        let policy = configuration.spec
        let request = PodRequest(bundle.spec)
        let blockDevices = SandboxPlan.BlockDevice.take(from: &bundle.spec)
        let findings =
            request.unsupportedHostNamespaces(bundle.spec, policy) + bundle.spec.unsupported(policy: policy)
        try Unsupported.refuse(findings, in: "config.json: ")
        var warnings = findings.map(\.description)
        if request.hostNamespaces(bundle.spec).contains(where: { $0.kind == .uts }) {
            // The machine's name is not the container's to change.
            (bundle.spec.hostname, bundle.spec.domainname) = ("", "")
        }
        var container = try Self(
            id: id, bundle: bundle, rootfs: rootfs, copyLimit: configuration.volumes.copyLimit,
            forwardsSockets: configuration.sockets.forward, nosuid: configuration.files.nosuid
        ) { warnings.append($0) }
        container.blockDevices = blockDevices
        if container.spec.linux?.allowsAllDevices == true { container.spec.linux?.removeHostDevices() }
        if policy.ineffectiveLimits == .warn { container.spec.linux?.resources?.removeIneffectiveLimits() }
        return (container, warnings.map { "config.json: \($0)" })
    }

    /// Turns a validated bundle into what the agent needs: the root file system and each bind mount become a share, but for
    /// volumes that the guest has itself.
    ///
    /// - Parameters:
    ///   - rootfs: the mounts that make its root file system, where its snapshotter describes them.
    ///   - copyLimit: bytes; a volume that is larger is not copied.
    ///   - forwardsSockets: whether a bind mount of a socket becomes a socket; otherwise it is refused.
    ///   - nosuid: whether set-user-id bits mean nothing in bind mounts.
    ///   - warn: told what comes out other than it could.
    /// - Throws: `SandboxError.invalid` when a path of the host does not exist; nothing has been touched then.
    init(
        id: String, bundle: Bundle, rootfs: [RootMount] = [], copyLimit: Int = Configuration().volumes.copyLimit,
        forwardsSockets: Bool = true, nosuid: Bool = false, warn: (String) -> Void = { _ in }
    ) throws {
        let guestRoot = GuestPath.rootfs(of: id)
        var spec = bundle.spec
        spec.mounts.completeDestinations(rootPath: bundle.rootPath)
        var shares: [SandboxPlan.Share] = []
        let diskRoot = try DiskRootPlanner.plan(rootfs, id: id)
        let rootReadOnly = spec.root?.readonly ?? false || diskRoot?.readOnly == true
        if diskRoot == nil {
            let root = try Self.realPath(bundle.rootPath, field: "root.path", mustBe: S_IFDIR)
            shares.append(
                .init(source: root, mounts: .all, readOnly: rootReadOnly ? .top : .none, mountPoint: guestRoot))
        }
        spec.root = Root(path: guestRoot, readonly: rootReadOnly)
        // The guest's own network is the pod's: a container in another namespace would have none.
        spec.linux?.namespaces.removeAll { $0.kind == .network }
        var volumes: [SandboxPlan.Volume] = []
        for index in spec.mounts.indices where spec.mounts[index].isOnDisk {
            let volume = try Self.volume(index, spec.mounts[index], bundle: bundle, at: GuestPath.mount(index, of: id))
            volumes.append(volume)
            spec.mounts[index] = spec.mounts[index].bound(to: volume.mountPoint)
        }
        spec.mounts.replaceHostCgroups()
        var podVolumes: [SandboxPlan.PodVolume] = []
        var sockets: [SandboxPlan.ForwardedSocket] = []
        for index in spec.mounts.indices where spec.mounts[index].isForwardedSocket {
            let mountPoint = GuestPath.mount(index, of: id)
            sockets.append(
                try .planned(spec.mounts[index], "mounts[\(index)]", bundle, mountPoint, isAllowed: forwardsSockets))
            spec.mounts[index] = spec.mounts[index].bound(to: mountPoint)
        }
        if let index = spec.sandboxMemoryMount {
            let volume = SandboxPlan.PodVolume(
                sandboxMemory: spec.mounts[index], mountPoint: GuestPath.mount(index, of: id))
            podVolumes.append(volume)
            spec.mounts[index] = spec.mounts[index].bound(to: volume.mountPoint)
        }
        var sharedMemory: SandboxPlan.SharedMemory?
        let isInGuest = Set(volumes.map(\.mountPoint) + sockets.map(\.mountPoint) + podVolumes.map(\.mountPoint))
        for index in spec.mounts.indices where spec.mounts[index].isBind {
            if isInGuest.contains(spec.mounts[index].source) { continue }
            let mount = spec.mounts[index]
            let field = "mounts[\(index)].source (\(mount.destination))"
            let mountPoint = GuestPath.mount(index, of: id)
            let ids = try spec.takeIDs(ofMount: index)
            if let part = spec.mounts.partOfRoot(index, bundle.absolute(mount.source), rootPath: bundle.rootPath) {
                guard ids == nil else {
                    throw SandboxError.unsupported("\(field): mapped ids for what other mounts of the container make")
                }
                spec.mounts[index].source = guestRoot + part
                continue
            }
            if let socket = try SandboxPlan.ForwardedSocket.planned(
                source: bundle.absolute(mount.source), field: field, mountPoint: mountPoint, isAllowed: forwardsSockets)
            {
                sockets.append(socket)
                spec.mounts[index].source = mountPoint
                continue
            }
            let source = try Self.realPath(bundle.absolute(mount.source), field: field, mustBe: nil)
            let share = SandboxPlan.Share(
                source: source, mounts: mount.isRecursive ? .all : .top, readOnly: mount.readOnlyExtent,
                mountPoint: mountPoint, ids: ids, propagates: mount.isSlave)
            if ids != nil {
                // Whatever it is: the guest's own copy of a volume would have the ids of its files.
            } else if let volume = try SandboxPlan.PodVolume.planned(
                source: source, field: field, mountPoint: mountPoint, copyLimit: copyLimit, warn: warn)
            {
                podVolumes.append(volume)
                spec.mounts[index].source = mountPoint
                continue
            }
            if ids == nil, let size = Self.sharedMemory(mount, bundle) {
                sharedMemory = .init(size: size, source: source)
                spec.mounts[index].source = GuestPath.sharedMemory
                continue
            }
            shares.append(share)
            spec.mounts[index].source = share.mountPoint
            spec.mounts[index].options += SourceFlags(of: source).options(
                beside: mount.options, nosuid: nosuid,
                ownUsers: spec.linux?.namespaces.contains { $0.kind == .user } ?? false)
        }
        try shares.refuseKernelFiles()
        // Whatever it is on the host: in the guest it is the network of the machine, which all containers of the pod share.
        spec.linux?.namespaces.removeAll { $0.kind == .network }
        self.init(
            id: id, root: diskRoot, shares: shares, volumes: volumes, podVolumes: podVolumes, sockets: sockets,
            sharedMemory: sharedMemory, spec: spec)
    }

    /// The size of a tmpfs of the host that engines bind to /dev/shm: memory that processes share is the guest's own.
    private static func sharedMemory(_ mount: Mount, _ bundle: Bundle) -> UInt64? {
        let tmpfs = 0x0102_1994  // linux/magic.h
        var facts = statfs()
        guard mount.destination == GuestPath.sharedMemory, statfs(bundle.absolute(mount.source), &facts) == 0,
            facts.f_type == tmpfs
        else { return nil }
        // An engine may have made it as large as the kernel takes.
        let (size, overflow) = UInt64(facts.f_blocks).multipliedReportingOverflow(by: UInt64(clamping: facts.f_bsize))
        return overflow ? .max : size
    }

    /// A file or block device of the host becomes a disk of the machine.
    private static func volume(
        _ index: Int, _ mount: Mount, bundle: Bundle, at mountPoint: String
    ) throws -> SandboxPlan.Volume {
        let field = "mounts[\(index)].source (\(mount.destination))"
        let path = bundle.absolute(mount.source)
        let (resolved, type) = try resolve(path, field)
        guard [S_IFREG, S_IFBLK].contains(type) else {
            throw SandboxError.invalid("\(field): \(path) is neither a file nor a block device")
        }
        let disk = Disk(path: resolved, readOnly: mount.options.contains("ro"))
        return .init(
            disk: disk, type: mount.type, options: mount.options, mountPoint: mountPoint)
    }

    private static func realPath(_ path: String, field: String, mustBe type: mode_t?) throws -> String {
        let (resolved, found) = try resolve(path, field)
        if let type, found != type { throw SandboxError.invalid("\(field): \(path) is not a directory") }
        switch found {
        case S_IFDIR, S_IFREG: return resolved
        case S_IFIFO: throw SandboxError.unsupported("\(field): \(path): a bind mount of a fifo of the host")
        default: throw SandboxError.unsupported("\(field): \(path): a bind mount of a device of the host")
        }
    }

    /// A path of the host without symbolic links, and the type of what is there (`S_IFDIR` …).
    static func resolve(_ path: String, _ field: String) throws -> (path: String, type: mode_t) {
        guard let resolved = realpath(path, nil) else {
            throw SandboxError.invalid("\(field): \(SystemError.last("resolve", path))")
        }
        defer { free(resolved) }
        var facts = stat()
        guard stat(resolved, &facts) == 0 else {
            throw SandboxError.invalid("\(field): \(SystemError.last("stat", path))")
        }
        return (String(cString: resolved), facts.st_mode & S_IFMT)
    }
}

extension Mount {
    /// File systems that lie on a disk, and that the guest's kernel has.
    static let diskTypes: Set<String> = ["ext2", "ext3", "ext4", "erofs"]
    /// Options of a mount rather than of its file system.
    private static let ownOptions: Set<String> = [
        "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "nodiratime", "diratime",
        "relatime", "norelatime", "strictatime", "nostrictatime",
    ]

    /// Whether a bind mount takes the mounts below its source along.
    fileprivate var isRecursive: Bool { options.contains("rbind") }

    /// Whether later mounts below its source appear in it: the last of the options that says something counts.
    fileprivate var isSlave: Bool {
        let kinds = ["slave", "private", "unbindable"]
        let last = options.last { option in kinds.contains { option == $0 || option == "r\($0)" } }
        return last == "slave" || last == "rslave"
    }

    /// Which mounts of a bind mount are read-only: the last of the options that says something counts, as with mount(8).
    fileprivate var readOnlyExtent: SandboxPlan.Share.Extent {
        if let last = options.last(where: { ["rro", "rrw"].contains($0) }), last == "rro" { return .all }
        return options.last { ["ro", "rw"].contains($0) } == "ro" ? .top : .none
    }

    /// A file system in a file or on a block device of the host.
    fileprivate var isOnDisk: Bool { !isBind && Self.diskTypes.contains(type) }

    /// This mount as a bind mount of what is at `source` in the guest.
    fileprivate func bound(to source: String) -> Mount {
        var copy = self
        copy.type = "bind"
        copy.source = source
        copy.options = ["rbind"] + options.filter { Self.ownOptions.contains($0) }
        return copy
    }
}
