import CLinux
import Glibc
public import LinuxSystem

/// Packs files and directories into an archive.
///
/// Symbolic links are packed as links. Further names of a file become hard links. Sockets are left out, and so is what is in the
/// kernel's own file systems (proc, sysfs, cgroups) where the tree has them mounted: an archive can't have it.
public struct Packer {
    private let writer: TarWriter
    /// The first name in the archive of each file that has more than one.
    private var firstNames: [FileIdentity: [UInt8]] = [:]

    private struct FileIdentity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    /// A directory that is still to be packed.
    private struct Pending {
        /// Below the source; empty: the source itself.
        var path: [UInt8]
        var device: UInt64
    }

    /// - Parameter descriptor: where the archive goes.
    public init(to descriptor: SharedDescriptor) { writer = TarWriter(descriptor) }

    /// Packs a source, and ends the archive.
    ///
    /// - Parameter isShallow: of a directory, only its own entry.
    public mutating func pack(_ source: CopySource, isShallow: Bool = false) throws {
        if let tree = source.tree {
            try pack(tree, source, isShallow)
        } else {
            try add(source.name, in: source.directory, as: source.archiveName)
        }
        try writer.finish()
    }

    // MARK: Directories

    private mutating func pack(_ tree: SharedDescriptor, _ source: CopySource, _ isShallow: Bool) throws {
        var pending = [Pending(path: [], device: UInt64(try tree.information().st_dev))]
        while let next = pending.popLast() {
            let archiveName = Self.joined(source.archiveName, next.path)
            let directory = try open(next, below: tree, archiveName)
            let status = try directory.information()
            var entry = Self.entry(.directory, archiveName, status)
            entry.attributes = ExtendedAttributes.read(directory.raw)
            try writer.add(entry)
            if isShallow { return }
            if !next.path.isEmpty, UInt64(status.st_dev) != next.device, Self.isKernels(directory) { continue }
            let below = try addFiles(of: directory, next.path, source)
            pending += below.reversed().map { Pending(path: $0, device: UInt64(status.st_dev)) }
        }
    }

    /// By its path from the source on, without following a link: one descriptor is open at a time, however deep the tree is.
    private func open(_ next: Pending, below tree: SharedDescriptor, _ name: [UInt8]) throws -> SharedDescriptor {
        try openEntry(
            next.path.isEmpty ? [UInt8(ascii: ".")] : next.path, in: tree.raw, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
            resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, as: shown(name))
    }

    /// Packs what is in a directory, but for the directories.
    ///
    /// - Returns: the paths of those.
    private mutating func addFiles(
        of directory: SharedDescriptor, _ path: [UInt8], _ source: CopySource
    ) throws -> [[UInt8]] {
        var directories: [[UInt8]] = []
        for name in try entryNames(of: directory, as: shown(Self.joined(source.archiveName, path))) {
            let below = path.isEmpty ? name : Self.joined(path, name)
            do {
                let archiveName = Self.joined(source.archiveName, below)
                if try add(name, in: directory, as: archiveName) == false { directories.append(below) }
            } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
                // It has gone since the directory was read.
                continue
            }
        }
        return directories
    }

    private static func joined(_ one: [UInt8], _ other: [UInt8]) -> [UInt8] {
        other.isEmpty ? one : one + [UInt8(ascii: "/")] + other
    }

    /// Whether a directory is on one of the kernel's file systems (linux/magic.h), whose files are none to copy.
    private static func isKernels(_ directory: SharedDescriptor) -> Bool {
        var facts = statfs()
        guard fstatfs(directory.raw, &facts) == 0 else { return false }
        let proc: Int = 0x9fa0
        let sysfs: Int = 0x6265_6572
        let cgroup: Int = 0x27_e0eb
        let cgroup2: Int = 0x6367_7270
        let debugfs: Int = 0x6462_6720
        let tracefs: Int = 0x7472_6163
        let bpf: Int = 0xcafe_4a11
        let securityfs: Int = 0x7363_6673
        let all = [proc, sysfs, cgroup, cgroup2, debugfs, tracefs, bpf, securityfs]
        return all.contains(Int(facts.f_type))
    }

    // MARK: Entries

    /// Packs what is no directory.
    ///
    /// - Returns: false for a directory, of which nothing is packed.
    @discardableResult
    private mutating func add(
        _ name: [UInt8], in directory: SharedDescriptor, as archiveName: [UInt8]
    ) throws -> Bool {
        var text: String { shown(archiveName) }
        let status = try entryStatus(name, in: directory.raw, as: text)
        switch status.st_mode & S_IFMT {
        case S_IFDIR: return false
        case S_IFREG: try addFile(name, in: directory, as: archiveName)
        case S_IFLNK:
            var entry = Self.entry(.symbolicLink, archiveName, status)
            entry.linkTarget = try linkText(name, in: directory.raw, as: text)
            try writer.add(entry)
        case S_IFIFO: try writer.add(Self.entry(.fifo, archiveName, status))
        case S_IFCHR: try writer.add(Self.device(.characterDevice, archiveName, status))
        case S_IFBLK: try writer.add(Self.device(.blockDevice, archiveName, status))
        // A socket.
        default: break
        }
        return true
    }

    private mutating func addFile(_ name: [UInt8], in directory: SharedDescriptor, as archiveName: [UInt8]) throws {
        var text: String { shown(archiveName) }
        // It may be another kind of file by now, which must neither block nor become a terminal.
        let file = try openEntry(name, in: directory.raw, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, as: text)
        let status = try file.information()
        guard status.st_mode & S_IFMT == S_IFREG else { throw ArchiveError.invalid("\(text): not a file any more") }
        var entry = Self.entry(.file, archiveName, status)
        if status.st_nlink > 1 {
            let identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
            if let first = firstNames[identity] {
                (entry.kind, entry.linkTarget) = (.hardLink, first)
                return try writer.add(entry)
            }
            firstNames[identity] = archiveName
        }
        entry.size = Int64(status.st_size)
        entry.attributes = ExtendedAttributes.read(file.raw)
        try writer.add(entry)
        var left = entry.size
        while left > 0 {
            left = try writer.fill { space in
                let count = try retrying("read", text) { read(file.raw, space.baseAddress, space.count) }
                if count == 0 {
                    throw ArchiveError.invalid("\(text): it has become shorter while it was read")
                }
                return count
            }
        }
    }

    private static func entry(_ kind: TarEntry.Kind, _ name: [UInt8], _ status: stat) -> TarEntry {
        TarEntry(
            kind, name, mode: status.st_mode & 0o7777, uid: status.st_uid, gid: status.st_gid,
            modified: (Int64(status.st_mtim.tv_sec), Int32(status.st_mtim.tv_nsec)))
    }

    private static func device(_ kind: TarEntry.Kind, _ name: [UInt8], _ status: stat) -> TarEntry {
        var entry = entry(kind, name, status)
        entry.device = DeviceNumber.parts(status.st_rdev)
        return entry
    }
}
