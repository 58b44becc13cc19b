import AgentContract
import Glibc
import LinuxSystem
import OCISpec

extension SandboxPlan.PodVolume {
    /// Plans a bind mount of a volume that the guest keeps in its own memory.
    ///
    /// - Parameters:
    ///   - source: the mount's source, without symbolic links.
    ///   - field: the property's name, for errors.
    ///   - copyLimit: the largest volume that is copied, bytes.
    ///   - warn: called with the reason when a volume can't be copied and is shared instead.
    /// - Returns: nil when the mount is a share.
    /// - Throws: an error for a volume that a guest can't have.
    static func planned(
        source: String, field: String, mountPoint: String, copyLimit: Int, warn: (String) -> Void
    ) throws -> Self? {
        guard let directory = KubeletDirectory(source) else { return nil }
        switch directory.plugin {
        case .emptyDir: return try emptyDir(directory, source, field: field, mountPoint: mountPoint)
        case .configMap, .secret, .projected, .downwardAPI:
            do {
                _ = try PublishedContent.read(directory.path, limit: copyLimit)
            } catch let reason as PublishedContent.CopyError {
                warn(
                    "\(field): \(directory.plugin.title) \(directory.name): \(reason): it is shared instead of copied, and programs "
                        + "that watch it get no events")
                return nil
            }
            return try Self(directory, kind: .copy, part: "", mountPoint: mountPoint)
        }
    }

    /// A tmpfs of the host becomes a tmpfs of the guest. An emptyDir on the host's disk is a share.
    private static func emptyDir(
        _ directory: KubeletDirectory, _ source: String, field: String, mountPoint: String
    ) throws -> Self? {
        let mounts = try MountEntry.all()
        guard let volume = mounts.last(where: { $0.mountPoint == directory.path }) else { return nil }
        if volume.type == "hugetlbfs" {
            throw SandboxError.unsupported("\(field): emptyDir \(directory.name): a medium of huge pages")
        }
        guard volume.type == "tmpfs" else { return nil }
        var part = ""
        if source != directory.path {
            let root = volume.root == "/" ? "/" : volume.root + "/"
            guard let mount = mounts.last(where: { $0.mountPoint == source }), mount.device == volume.device,
                mount.root.hasPrefix(root)
            else { return nil }
            part = String(mount.root.dropFirst(root.count))
        }
        var plan = try Self(directory, kind: .memory, part: part, mountPoint: mountPoint)
        plan.size = size(volume.options)
        return plan
    }

    /// The size of a tmpfs in bytes, from its mount options; nil when it has no size or no limit.
    static func size(_ options: [String]) -> UInt64? {
        guard let option = options.first(where: { $0.hasPrefix("size=") && $0.hasSuffix("k") }),
            let size = UInt64(option.dropFirst(5).dropLast()), size > 0
        else { return nil }
        let (bytes, overflow) = size.multipliedReportingOverflow(by: 1024)
        return overflow ? nil : bytes
    }

    private init(_ directory: KubeletDirectory, kind: Kind, part: String, mountPoint: String) throws {
        var facts = stat()
        try check("stat", directory.path, lstat(directory.path, &facts))
        self.init(
            // Device and inode are unique on the host.
            name: "\(facts.st_dev)-\(facts.st_ino)", title: "\(directory.plugin.title) \(directory.name)", kind: kind,
            source: directory.path, mode: facts.st_mode & 0o7777, uid: facts.st_uid, gid: facts.st_gid, part: part,
            mountPoint: mountPoint)
    }
}

extension Spec {
    /// The mount of a tmpfs at /dev/shm in a container that is in the pod's IPC namespace: its memory is the pod's too. Clients of
    /// containerd's Sandbox service describe it for each container as if it were the container's own.
    var sandboxMemoryMount: Int? {
        guard linux?.namespaces.contains(where: { $0.kind == .ipc && $0.isSandboxes }) == true else { return nil }
        return mounts.lastIndex { $0.destination == GuestPath.sharedMemory && $0.type == "tmpfs" && !$0.isBind }
    }
}

extension SandboxPlan.PodVolume {
    /// Volumes of the host have numbers for names.
    private static let sandboxMemoryName = "martlet-shm"

    /// The /dev/shm of a pod whose containers mount a tmpfs there. The first of them says how large it is.
    init(sandboxMemory mount: Mount, mountPoint: String) {
        self.init(
            name: Self.sandboxMemoryName, title: "/dev/shm", kind: .memory, source: "",
            size: Self.tmpfsSize(mount.options), mode: Self.tmpfsMode(mount.options) ?? 0o1777, uid: 0, gid: 0,
            part: "",
            mountPoint: mountPoint)
    }

    /// The bytes of tmpfs's option `size`, which may end with k, m or g (Documentation/filesystems/tmpfs.rst); nil: none, or one that
    /// is not a number of bytes.
    static func tmpfsSize(_ options: [String]) -> UInt64? {
        guard let text = options.last(where: { $0.hasPrefix("size=") })?.dropFirst(5).lowercased() else { return nil }
        let shift = ["k": 10, "m": 20, "g": 30][text.suffix(1)] ?? 0
        guard let number = UInt64(shift == 0 ? text[...] : text.dropLast()), number > 0 else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : bytes
    }

    /// The permissions of tmpfs's option `mode`, an octal number.
    private static func tmpfsMode(_ options: [String]) -> UInt32? {
        options.last { $0.hasPrefix("mode=") }.flatMap { UInt32($0.dropFirst(5), radix: 8) }.map { $0 & 0o7777 }
    }
}

extension SandboxPlan.Container {
    /// Gives a container that joins a pod a /dev/shm of its own where its engine binds another one than the pod's: containers that
    /// share a network need not share memory. Those that bind the same share it.
    ///
    /// - Parameter pods: of the pod's first container.
    mutating func separateSharedMemory(from pods: SandboxPlan.SharedMemory?) throws {
        guard let own = sharedMemory, own.source != pods?.source else { return }
        sharedMemory = nil
        for index in spec.mounts.indices where spec.mounts[index].source == GuestPath.sharedMemory {
            let mountPoint = GuestPath.mount(index, of: id)
            podVolumes.append(try .init(own, mountPoint: mountPoint))
            spec.mounts[index].source = mountPoint
        }
    }
}

extension SandboxPlan.PodVolume {
    fileprivate init(_ memory: SandboxPlan.SharedMemory, mountPoint: String) throws {
        var facts = stat()
        try check("stat", memory.source, stat(memory.source, &facts))
        self.init(
            name: "\(facts.st_dev)-\(facts.st_ino)", title: "/dev/shm", kind: .memory, source: memory.source,
            size: memory.size, mode: facts.st_mode & 0o7777, uid: facts.st_uid, gid: facts.st_gid, part: "",
            mountPoint: mountPoint)
    }
}
