import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import OCISpec

/// Plans a root file system whose mounts are file systems in files or on block devices of the host: they become disks, and the guest
/// mounts and stacks them. The host's kernel mounts none of them.
struct DiskRootPlanner {
    private let id: String
    /// The mounts until now, as later ones name them.
    private var active: [ActiveMount] = []
    private var mounts: [SandboxPlan.GuestMount] = []
    private var disks: [Disk] = []
    /// The files of EROFS file systems, which share a disk.
    private var layers: [Disk.Part] = []
    /// Which of them a mount has, by the mount's number.
    private var layersOf: [Int: Range<Int>] = [:]

    /// The plan of a root.
    ///
    /// - Parameters:
    ///   - rootfs: as the engine's snapshotter describes them.
    ///   - id: the container's.
    /// - Returns: nil where the host mounts them.
    /// - Throws: `SandboxError` with the mount's number, for what a guest can't have.
    static func plan(_ rootfs: [RootMount], id: String) throws -> SandboxPlan.DiskRoot? {
        let entries = rootfs.enumerated().map { Entry($1, index: $0) }
        for entry in entries { try entry.refuseOtherFileSystems() }
        guard entries.contains(where: \.isOnDisk) else {
            guard let entry = entries.first(where: { !$0.transformers.isEmpty }) else { return nil }
            throw SandboxError.unsupported(
                "rootfs[\(entry.index)].type: \(entry.mount.type) without a file system in a file or on a block device")
        }
        var planner = DiskRootPlanner(id: id)
        for entry in entries {
            do { try planner.add(entry) } catch let error as SandboxError {
                throw error.during("rootfs[\(entry.index)] (\(entry.mount.type) \(entry.mount.source))")
            }
        }
        return try planner.finished()
    }

    private init(id: String) { self.id = id }

    private mutating func add(_ entry: Entry) throws {
        guard entry.mount.target.isEmpty else {
            throw SandboxError.unsupported("target: \(entry.mount.target): a disk below the root file system")
        }
        let source = try MountTemplate.expand(entry.mount.source, active)
        let options = try entry.options(active)
        switch entry.type {
        case "loop": try addFile(source)
        case "overlay": try addOverlay(options)
        case "bind": try addBind(source, options)
        default: try addDisk(entry.type, source, options)
        }
    }

    private mutating func append(_ mount: SandboxPlan.GuestMount, source: String = "") {
        mounts.append(mount)
        active.append(ActiveMount(source: source, mountPoint: mount.mountPoint))
    }

    /// Where the next mount is, as long as it is not the root.
    private var nextPlace: String { GuestPath.layer(active.count, of: id) }

    // MARK: Kinds of mounts

    /// A file that a later mount is of.
    private mutating func addFile(_ path: String) throws {
        let (resolved, _) = try Self.file(path)
        active.append(ActiveMount(source: resolved, mountPoint: resolved))
    }

    private mutating func addDisk(_ type: String, _ path: String, _ options: Entry.Options) throws {
        guard options.directories.isEmpty else { throw SandboxError.unsupported("directories of a disk") }
        let (resolved, bytes) = try Self.file(path)
        var mount = SandboxPlan.GuestMount(
            kind: .memory, options: options.others, readOnly: options.isReadOnly || type == "erofs",
            mountPoint: nextPlace)
        if type == "erofs" {
            let begin = layers.count
            layers.append(.init(path: resolved, bytes: bytes))
            mount.options.removeAll { $0.hasPrefix("device=") }
            for option in options.others where option.hasPrefix("device=") {
                let (device, bytes) = try Self.file(String(option.dropFirst("device=".count)))
                layers.append(.init(path: device, bytes: bytes))
            }
            // The disk is not known before all of its parts are.
            mount.kind = .disk(id: "", type: type, parts: [])
            layersOf[mounts.count] = begin..<layers.count
        } else {
            let disk = Disk(path: resolved, readOnly: options.isReadOnly)
            disks.append(disk)
            mount.kind = .disk(id: disk.id, type: type, parts: [])
        }
        if mount.readOnly { mount.options.append("ro") }
        append(mount, source: resolved)
    }

    private mutating func addOverlay(_ options: Entry.Options) throws {
        var others = options.others
        func take(_ name: String) -> String {
            let found = others.last { $0.hasPrefix("\(name)=") }
            others.removeAll { $0.hasPrefix("\(name)=") }
            return String(found?.dropFirst(name.utf8.count + 1) ?? "")
        }
        let lower = take("lowerdir").split(separator: ":").map(String.init)
        var (upper, work) = (take("upperdir"), take("workdir"))
        for name in ["uidmap", "gidmap"] where others.contains(where: { $0.hasPrefix("\(name)=") }) {
            throw SandboxError.unsupported("\(name): mapped ids")
        }
        guard !lower.isEmpty else { throw SandboxError.invalid("lowerdir: missing") }
        for path in lower { try checkInGuest(path, "lowerdir") }
        guard upper.isEmpty == work.isEmpty else {
            throw SandboxError.invalid("upperdir and workdir: only one of them")
        }
        var directories = options.directories
        if !upper.isEmpty, !isInGuest(upper) {
            // A directory of the host: what the container writes is to stay in the guest.
            (upper, work) = addMemory(&directories)
        }
        for path in [upper, work] where !path.isEmpty { try checkInGuest(path, "upperdir or workdir") }
        for directory in directories { try checkInGuest(directory.path, "X-containerd.mkdir.path") }
        append(
            .init(
                kind: .overlay(lower: lower, upper: upper, work: work), options: others, directories: directories,
                readOnly: options.isReadOnly || upper.isEmpty, mountPoint: nextPlace))
    }

    private mutating func addBind(_ path: String, _ options: Entry.Options) throws {
        try checkInGuest(path, "source")
        for directory in options.directories { try checkInGuest(directory.path, "X-containerd.mkdir.path") }
        append(
            .init(
                kind: .bind(path: path), directories: options.directories, readOnly: options.isReadOnly,
                mountPoint: nextPlace))
    }

    /// A tmpfs of the guest for what is written; nothing names it.
    private mutating func addMemory(_ directories: inout [SandboxPlan.GuestDirectory]) -> (upper: String, work: String)
    {
        // Behind all that can be named.
        let place = GuestPath.layer(Self.firstMemory + mounts.count, of: id)
        mounts.append(.init(kind: .memory, mountPoint: place))
        let (upper, work) = ("\(place)/upper", "\(place)/work")
        directories = [.init(path: upper), .init(path: work)]
        return (upper, work)
    }

    private static let firstMemory = 1000

    // MARK: The whole

    private mutating func finished() throws -> SandboxPlan.DiskRoot {
        guard layers.count <= Disk.maximumParts else {
            throw SandboxError.unsupported("rootfs: \(layers.count) files of EROFS, more than \(Disk.maximumParts)")
        }
        placeLayers()
        guard var last = mounts.popLast(), active.last?.mountPoint == last.mountPoint else {
            throw SandboxError.invalid("rootfs: the last mount is no file system")
        }
        let isReadOnly = last.readOnly
        if isReadOnly {
            // The container can't write there, but the places of its own mounts must be made.
            var lower = [last.mountPoint]
            switch last.kind {
            case .overlay(let all, "", _): lower = all
            case .bind(let path): lower = [path]
            default: mounts.append(last)
            }
            var directories: [SandboxPlan.GuestDirectory] = []
            let (upper, work) = addMemory(&directories)
            last = .init(
                kind: .overlay(lower: lower, upper: upper, work: work), directories: directories, mountPoint: "")
        }
        last.mountPoint = GuestPath.rootfs(of: id)
        mounts.append(last)
        var seen: Set<String> = []
        disks = disks.filter { seen.insert($0.id).inserted }
        return .init(disks: disks, mounts: mounts, readOnly: isReadOnly)
    }

    /// Makes one disk of all files of EROFS.
    private mutating func placeLayers() {
        guard let first = layers.first else { return }
        let isWhole = layers.count == 1
        let disk = isWhole ? Disk(path: first.path, readOnly: true) : Disk(parts: layers, readOnly: true)
        disks.append(disk)
        let places = disk.places.map { place in
            let unit = Disk.alignment
            return SandboxPlan.DiskPart(offset: place.offset, length: (place.bytes + unit - 1) / unit * unit)
        }
        for (index, range) in layersOf {
            guard case .disk(_, let type, _) = mounts[index].kind else { continue }
            mounts[index].kind = .disk(id: disk.id, type: type, parts: isWhole ? [] : Array(places[range]))
        }
    }

    // MARK: Paths

    private func isInGuest(_ path: String) -> Bool {
        path.hasPrefix("\(GuestPath.containers)/\(id)/layers/")
    }

    /// Only what was mounted before can be part of the root.
    private func checkInGuest(_ path: String, _ name: String) throws {
        let isMounted = mounts.contains { path == $0.mountPoint || path.hasPrefix($0.mountPoint + "/") }
        guard isMounted, !path.split(separator: "/").contains("..") else {
            throw SandboxError.unsupported("\(name): \(path): a directory that is in none of the mounts before it")
        }
        guard !path.contains(where: { ",:\\".contains($0) }) else { throw SandboxError.invalid("\(name): \(path)") }
    }

    /// A file or block device of the host, without symbolic links, and its size in bytes.
    private static func file(_ path: String) throws -> (path: String, bytes: UInt64) {
        guard path.hasPrefix("/") else { throw SandboxError.invalid("\(path): not an absolute path") }
        let (resolved, type) = try SandboxPlan.Container.resolve(path, "source")
        guard [S_IFREG, S_IFBLK].contains(type) else {
            throw SandboxError.invalid("\(path): neither a file nor a block device")
        }
        return (resolved, try size(of: resolved, isDevice: type == S_IFBLK))
    }

    private static func size(of path: String, isDevice: Bool) throws -> UInt64 {
        var bytes: UInt64 = 0
        if isDevice {
            let device = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY))
            try check("BLKGETSIZE64", path, martlet_ioctl_pointer(device.raw, martlet_BLKGETSIZE64, &bytes))
        } else {
            var facts = stat()
            try check("stat", path, stat(path, &facts))
            bytes = UInt64(clamping: facts.st_size)
        }
        guard bytes > 0 else { throw SandboxError.invalid("\(path): empty") }
        return bytes
    }
}

extension SandboxError {
    /// The same error of a part: with what it is of before its message.
    fileprivate func during(_ what: String) -> SandboxError {
        switch self {
        case .invalid(let message): .invalid("\(what): \(message)")
        case .unsupported(let message): .unsupported("\(what): \(message)")
        default: self
        }
    }
}
