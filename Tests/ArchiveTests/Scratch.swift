import Archive
import Glibc
import LinuxSystem
import Testing

/// A directory of one test: `outside` must stay as it is, what is unpacked goes into `in`.
final class Scratch {
    let path: String
    var inside: String { path + "/in" }
    var outside: String { path + "/outside" }

    init() throws {
        var template = Array("/tmp/martlet-archive.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for name in ["in", "outside"] { try #require(mkdir("\(path)/\(name)", 0o755) == 0) }
        try write("outside/secret", "kept")
    }

    deinit { _ = system("chmod -R u+rwx '\(path)'; rm -rf '\(path)'") }

    func write(_ name: String, _ text: String) throws {
        let file = try OwnedDescriptor.open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try writeAll(Array(text.utf8), to: file.raw, name)
    }

    func read(_ name: String) -> String? { try? readText("\(path)/\(name)") }

    func status(_ name: String) -> stat? {
        var status = stat()
        return lstat("\(path)/\(name)", &status) == 0 ? status : nil
    }

    /// Runs a shell command in the directory.
    ///
    /// - Returns: what it printed.
    @discardableResult
    func shell(_ command: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        try write(".script", command)
        let status = system("cd '\(path)' && bash .script > .output 2>&1")
        let output = read(".output") ?? ""
        try #require(status == 0, "\(command): \(output)", sourceLocation: sourceLocation)
        return output
    }

    /// A file of the directory, opened for reading.
    func open(_ name: String) throws -> SharedDescriptor {
        SharedDescriptor(try OwnedDescriptor.open("\(path)/\(name)", O_RDONLY))
    }

    /// An archive of these entries.
    func archive(_ entries: [(TarEntry, [UInt8])]) throws -> SharedDescriptor {
        let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
        let writer = TarWriter(file)
        for (entry, content) in entries {
            var entry = entry
            if entry.kind == .file { entry.size = Int64(content.count) }
            try writer.add(entry)
            var rest = content[...]
            while !rest.isEmpty {
                _ = try writer.fill { space in
                    let part = rest.prefix(space.count)
                    part.withUnsafeBytes { space.copyMemory(from: $0) }
                    rest = rest.dropFirst(part.count)
                    return part.count
                }
            }
        }
        try writer.finish()
        lseek(file.raw, 0, SEEK_SET)
        return file
    }

    /// The bytes as a file to be read.
    func file(_ bytes: [UInt8]) throws -> SharedDescriptor {
        let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
        try writeAll(bytes, to: file.raw, "archive")
        return file
    }

    /// Unpacks into a directory of this one.
    ///
    /// - Returns: what was left out.
    @discardableResult
    func unpack(
        _ archive: SharedDescriptor, to name: String = "in", _ rule: CopyDestination.Rule = .directory(isMade: false),
        _ policy: UnpackPolicy = .host(keepsOwners: false)
    ) throws -> [String] {
        let reader = TarReader(archive)
        let first = try reader.next()
        let destination = try CopyDestination(root: RootDirectory("/"), path: "\(path)/\(name)", rule, first: first)
        var unpacker = Unpacker(into: destination, policy)
        try unpacker.unpack(reader, first: first)
        return unpacker.leftOut.names
    }

    /// Packs a path of the directory into the file `archive.tar`.
    func pack(_ name: String, followsLink: Bool = false, isShallow: Bool = false) throws -> SharedDescriptor {
        let file = SharedDescriptor(
            try OwnedDescriptor.open(path + "/archive.tar", O_RDWR | O_CREAT | O_TRUNC, mode: 0o644))
        var packer = Packer(to: file)
        try packer.pack(
            CopySource(root: RootDirectory("/"), path: "\(path)/\(name)", followsLink: followsLink),
            isShallow: isShallow)
        lseek(file.raw, 0, SEEK_SET)
        return file
    }

    /// All entries of an archive with their contents.
    func entries(_ archive: SharedDescriptor) throws -> [(entry: TarEntry, content: [UInt8])] {
        let reader = TarReader(archive)
        var all: [(TarEntry, [UInt8])] = []
        while let entry = try reader.next() {
            var content: [UInt8] = []
            try reader.content { content.append(contentsOf: $0) }
            all.append((entry, content))
        }
        return all
    }
}

extension [UInt8] {
    var text: String { String(decoding: self, as: UTF8.self) }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
