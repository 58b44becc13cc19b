import AgentAPI
import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// A tmpfs that containers share. Its content is theirs: no symbolic link in it is followed.
final class Volume: Sendable {
    private let path: String
    private let root: SharedDescriptor

    /// Makes and mounts it.
    init(_ request: AgentMakeVolumeRequest, at path: String) throws(SystemError) {
        self.path = path
        try makeDirectories(path)
        let size = request.sizeBytes == 0 ? "100%" : "\(request.sizeBytes)"
        try GuestMounts.mountAt("tmpfs", path, "tmpfs", 0, "size=\(size)")
        do throws(SystemError) {
            root = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY))
            try Self.own(root.raw, path, request.mode, request.uid, request.gid)
        } catch {
            umount2(path, Int32(MNT_DETACH))
            throw error
        }
    }

    /// A mount of what is at `subpath` (empty: all of it), attached nowhere. Links in the volume lead nowhere else.
    func tree(_ subpath: String) throws(SystemError) -> SharedDescriptor {
        let place = "\(path)/\(subpath)"
        let found = try open(subpath.isEmpty ? "." : subpath, martlet_O_PATH, UInt64(RESOLVE_IN_ROOT), place)
        let flags = UInt32(OPEN_TREE_CLONE) | UInt32(O_CLOEXEC) | UInt32(AT_EMPTY_PATH)
        return SharedDescriptor(
            OwnedDescriptor(owning: try check("open_tree", place, martlet_open_tree(found.raw, "", flags))))
    }

    /// Writes what a request brings, and publishes it where the request says so.
    func write(_ request: AgentWriteVolumeRequest) throws(AgentFailure) {
        // What is published together with the directory.
        let isPublished = { (entry: AgentVolumeEntry) in
            !request.publish.isEmpty && entry.isLink && VolumePath(entry.path)?.directory.isEmpty == true
        }
        for entry in request.entries where !isPublished(entry) { try write(entry) }
        if request.publish.isEmpty { return }
        try during("publish \(request.publish)") { [root, path] in
            try VolumePublication(root: root, path: path)
                .publish(request.publish, request.entries.filter(isPublished))
        }
    }

    private func write(_ entry: AgentVolumeEntry) throws(AgentFailure) {
        if entry.path.isEmpty {
            return try during("write its root directory") {
                try Self.own(root.raw, path, entry.mode, entry.uid, entry.gid)
            }
        }
        guard let place = VolumePath(entry.path) else {
            throw AgentFailure(.invalidArgument, "\(entry.path) is not a path in a volume")
        }
        try during("write \(entry.path)") {
            let parent =
                place.directory.isEmpty
                ? root
                : try open(
                    place.directory, O_RDONLY | O_DIRECTORY, UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
                    place.directory)
            switch entry.mode & S_IFMT {
            case S_IFDIR: try makeDirectory(place.name, in: parent, entry)
            case S_IFREG: try writeFile(place.name, in: parent, entry)
            case S_IFLNK: try makeLink(place.name, in: parent, entry)
            default: throw AgentFailure(.invalidArgument, "neither a directory, a file nor a link")
            }
        }
    }

    private func makeDirectory(_ name: String, in parent: SharedDescriptor, _ entry: AgentVolumeEntry)
        throws(SystemError)
    {
        if mkdirat(parent.raw, name, 0o700) != 0 {
            if Glibc.errno == EEXIST { return }
            throw SystemError.last("mkdir", name)
        }
        let made = try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: parent.raw)
        try Self.own(made.raw, name, entry.mode, entry.uid, entry.gid)
    }

    private func writeFile(_ name: String, in parent: SharedDescriptor, _ entry: AgentVolumeEntry) throws(SystemError) {
        let flags = O_WRONLY | O_NOFOLLOW | (entry.offset == 0 ? O_CREAT | O_EXCL : 0)
        let file = try OwnedDescriptor.open(name, flags, mode: entry.offset == 0 ? 0o600 : 0, at: parent.raw)
        let bytes = Array(entry.data)
        var written = 0
        while written < bytes.count {
            written += try retrying("write", name) {
                bytes.withUnsafeBytes {
                    pwrite(
                        file.raw, $0.baseAddress.map { $0 + written }, $0.count - written,
                        off_t(truncatingIfNeeded: entry.offset) + written)
                }
            }
        }
        try Self.own(file.raw, name, entry.mode, entry.uid, entry.gid)
    }

    private func makeLink(_ name: String, in parent: SharedDescriptor, _ entry: AgentVolumeEntry) throws(SystemError) {
        try check("symlink", name, symlinkat(entry.target, parent.raw, name))
        try check("chown", name, fchownat(parent.raw, name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW))
    }

    private func open(
        _ path: String, _ flags: Int32, _ resolve: UInt64, _ name: String
    ) throws(SystemError) -> SharedDescriptor {
        let raw = martlet_openat2(root.raw, path, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), 0, resolve)
        return SharedDescriptor(OwnedDescriptor(owning: try check("open", name, raw)))
    }

    /// Owner first: giving a file away takes bits of its mode.
    private static func own(
        _ descriptor: Int32, _ name: String, _ mode: UInt32, _ uid: UInt32, _ gid: UInt32
    ) throws(SystemError) {
        try check("chown", name, fchown(descriptor, uid, gid))
        try check("chmod", name, fchmod(descriptor, mode & 0o7777))
    }
}

extension AgentVolumeEntry {
    var isLink: Bool { mode & S_IFMT == S_IFLNK }
    /// Where a link leads.
    var target: String { String(decoding: data, as: UTF8.self) }
}
