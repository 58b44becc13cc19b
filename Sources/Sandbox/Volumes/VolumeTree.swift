import CLinux
import Glibc
import LinuxSystem

/// A directory, file or symbolic link of a volume on the host.
struct VolumeEntry: Sendable, Equatable {
    /// The relative path; empty for the directory that was read.
    var path: String
    /// Type and permissions, as in stat(2).
    var mode: UInt32
    var uid: UInt32
    var gid: UInt32
    /// A file's contents, or a link's target.
    var data: [UInt8] = []

    init(_ path: String, _ facts: stat) {
        (self.path, mode, uid, gid) = (path, facts.st_mode, facts.st_uid, facts.st_gid)
    }

    /// The size that counts towards a limit, bytes. It includes path and metadata, because many small files use memory too.
    var size: Int { path.utf8.count + data.count + 64 }
}

/// Reads a directory tree of the host. Symbolic links are not followed.
struct VolumeTree {
    struct TooLarge: Error {
        var limit: Int
    }

    private(set) var entries: [VolumeEntry] = []
    private var left: Int
    private let limit: Int

    private init(limit: Int) { (left, self.limit) = (limit, limit) }

    /// Reads an open directory and all that is in it. Each directory comes before its contents.
    ///
    /// - Throws: `TooLarge` beyond `limit` bytes; an error with the path for a device, socket or fifo.
    static func read(_ directory: Int32, _ path: String, limit: Int) throws -> [VolumeEntry] {
        var facts = stat()
        try check("fstat", path, fstat(directory, &facts))
        var tree = VolumeTree(limit: limit)
        try tree.add(VolumeEntry("", facts))
        try tree.readAll(in: directory, "", path)
        return tree.entries
    }

    /// The directories below the volume's own that lead to `path`, as they are on the host.
    static func directories(to path: String, in volume: String) throws -> [VolumeEntry] {
        var directory = SharedDescriptor(try OwnedDescriptor.open(volume, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
        var reached = ""
        var entries: [VolumeEntry] = []
        for name in path.split(separator: "/").map(String.init) {
            reached += reached.isEmpty ? name : "/" + name
            directory = SharedDescriptor(
                try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory.raw))
            var facts = stat()
            try check("fstat", "\(volume)/\(reached)", fstat(directory.raw, &facts))
            entries.append(VolumeEntry(reached, facts))
        }
        return entries
    }

    private mutating func readAll(in directory: Int32, _ prefix: String, _ path: String) throws {
        for name in try directoryNames(directory, path).sorted() {
            try read(name, in: directory, prefix + name, "\(path)/\(name)")
        }
    }

    private mutating func read(_ name: String, in directory: Int32, _ relative: String, _ path: String) throws {
        var facts = stat()
        try check("stat", path, fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW))
        var entry = VolumeEntry(relative, facts)
        switch facts.st_mode & S_IFMT {
        case S_IFDIR:
            try add(entry)
            let inside = try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory)
            try readAll(in: inside.raw, relative + "/", path)
        case S_IFREG:
            // Non-blocking, in case the file was replaced by a fifo.
            let file = try OwnedDescriptor.open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, at: directory)
            entry.data = try bytes(file.raw, path)
            try add(entry)
        case S_IFLNK:
            guard let target = linkTarget(name, at: directory) else { throw SystemError.last("readlink", path) }
            entry.data = target
            try add(entry)
        default: throw SandboxError.unsupported("\(path): a device, socket or fifo in a volume")
        }
    }

    /// The rest of a file.
    ///
    /// - Throws: `TooLarge` when it exceeds the rest of the limit.
    private func bytes(_ file: Int32, _ path: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = try retrying("read", path) { Glibc.read(file, &chunk, chunk.count) }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
            if bytes.count > left { throw TooLarge(limit: limit) }
        }
    }

    private mutating func add(_ entry: VolumeEntry) throws {
        left -= entry.size
        if left < 0 { throw TooLarge(limit: limit) }
        entries.append(entry)
    }
}
