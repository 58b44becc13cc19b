import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

/// All tests of the file server: one after the other, as they share the process's umask; as root, which may make
/// device nodes and act for other users.
@Suite("Files", .serialized, .enabled(if: geteuid() == 0, "needs root: the server acts for users of the guest"))
struct FilesTests {}

/// The number of descriptors of scratch directories and of procfs that this process has open: other suites run beside
/// these, and open others.
func openDescriptors() -> Int {
    guard let directory = opendir("/proc/self/fd") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        var target = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/fd/\(name)", &target, target.count)
        let path = String(decoding: target.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if path == "/proc" || path.contains("/martlet-files-") { count += 1 }
    }
    return count
}

/// Drives a file server as a guest's kernel does, with requests made by hand.
final class FuseGuest {
    let server: FileServer
    private var unique: UInt64 = 100
    var user: UInt32 = 0
    var group: UInt32 = 0
    /// Sizes into which buffers are cut; the last repeats. Empty: header and arguments in one piece each.
    var cuts: [Int] = []
    /// The directories of the shares in the root.
    private(set) var fileSystems: [String: String] = [:]

    init(_ options: FileServer.Options = .init()) throws {
        let proc = try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY)
        server = try FileServer(proc: proc, options: options)
    }

    /// Shares a directory or file as `name` in the directory of its file system.
    ///
    /// - Parameters:
    ///   - detached: as a mount of its own, read-only if the share is, as a pod does it.
    ///   - fileSystem: the name of the directory; nil: one that is the same for all of a device.
    func share(
        _ name: String, _ path: String, readOnly: Bool = false, detached: Bool = false, fileSystem: String? = nil
    ) throws {
        var descriptor = try OwnedDescriptor.open(path, martlet_O_PATH | O_NOFOLLOW)
        if detached {
            let flags = UInt32(OPEN_TREE_CLONE) | UInt32(bitPattern: O_CLOEXEC) | UInt32(AT_EMPTY_PATH)
            let tree = try check("open_tree", path, martlet_open_tree(descriptor.raw, "", flags))
            descriptor = OwnedDescriptor(owning: tree)
            let attributes = UInt64(readOnly ? MOUNT_ATTR_RDONLY : 0)
            let result = martlet_mount_setattr(
                tree, "", UInt32(AT_EMPTY_PATH), attributes, 0, UInt64(MARTLET_MS_PRIVATE))
            try check("mount_setattr", path, result)
        }
        let fileSystem = try fileSystem ?? "fs-\(FileStatus(of: descriptor.raw).device)"
        try server.addShare(name: "\(fileSystem)/\(name)", descriptor: descriptor, readOnly: readOnly)
        fileSystems[name] = fileSystem
    }

    func removeShare(_ name: String) throws {
        try server.removeShare(name: "\(fileSystems[name] ?? "")/\(name)")
    }

    /// Bytes of a request: header and arguments.
    func request(_ operation: UInt32, _ node: UInt64, _ arguments: [UInt8]) -> [UInt8] {
        unique += 1
        var header = fuse_in_header()
        header.len = UInt32(40 + arguments.count)
        header.opcode = operation
        header.unique = unique
        header.nodeid = node
        header.uid = user
        header.gid = group
        return wire(header) + arguments
    }

    /// Gives the server any bytes and answers with any bytes.
    func raw(_ request: [UInt8], room: Int) -> (used: UInt32, reply: [UInt8]) {
        var input = request
        var output = [UInt8](repeating: 0xa5, count: room)
        let used = input.withUnsafeMutableBytes { input in
            output.withUnsafeMutableBytes { output in
                cut(input, first: 40) { readable in
                    cut(output, first: 16) { server.handle(readable: readable, writable: $0) }
                }
            }
        }
        #expect(Int(used) <= room)
        #expect(output[min(Int(used), room)...].allSatisfy { $0 == 0xa5 }, "wrote beyond what it says it used")
        return (used, Array(output.prefix(Int(used))))
    }

    private func cut<R>(
        _ bytes: UnsafeMutableRawBufferPointer, first: Int, _ body: (UnsafeBufferPointer<iovec>) -> R
    ) -> R {
        var parts: [iovec] = []
        var start = 0
        var sizes = (cuts.isEmpty ? [first, Int.max] : cuts)[...]
        while start < bytes.count, let base = bytes.baseAddress {
            let size = sizes.count > 1 ? sizes.removeFirst() : sizes.first ?? Int.max
            let length = min(size, bytes.count - start)
            parts.append(iovec(iov_base: base + start, iov_len: length))
            start += length
        }
        return parts.withUnsafeBufferPointer(body)
    }

    /// Sends a request; the payload of the answer, or the error it carries.
    @discardableResult
    func send(_ operation: FuseOperation, _ node: UInt64, _ arguments: [UInt8], room: Int = 8192) throws -> [UInt8] {
        let (used, reply) = raw(request(operation.rawValue, node, arguments), room: room)
        guard used >= 16 else { throw FileError(-1) }
        let header = value(reply, fuse_out_header.self)
        #expect(header.len == used && header.unique == unique)
        if header.error != 0 {
            #expect(used == 16)
            throw FileError(-header.error)
        }
        return Array(reply.dropFirst(16))
    }

    /// The error of a request, 0 if it was served.
    func error(_ operation: FuseOperation, _ node: UInt64, _ arguments: [UInt8], room: Int = 8192) -> Int32 {
        do {
            try send(operation, node, arguments, room: room)
            return 0
        } catch let error as FileError {
            return error.code
        } catch {
            return -2
        }
    }

    // MARK: Requests

    @discardableResult
    func start(flags: UInt32 = .max >> 1) throws -> fuse_init_out {
        var input = fuse_init_in()
        input.major = 7
        input.minor = 38
        input.max_readahead = 128 << 10
        input.flags = flags
        return value(try send(.initialize, 0, wire(input)), fuse_init_out.self)
    }

    /// In the root the name may be a share's.
    func lookup(_ parent: UInt64, _ name: String) throws -> fuse_entry_out {
        var parent = parent
        if parent == 1, let fileSystem = fileSystems[name] { parent = try lookup(1, fileSystem).nodeid }
        return value(try send(.lookup, parent, text(name)), fuse_entry_out.self)
    }

    /// Walks a path from the root.
    func walk(_ path: String) throws -> fuse_entry_out {
        var entry = fuse_entry_out()
        entry.nodeid = 1
        for name in path.split(separator: "/") { entry = try lookup(entry.nodeid, String(name)) }
        return entry
    }

    func attributes(_ node: UInt64) throws -> fuse_attr {
        value(try send(.getattr, node, wire(fuse_getattr_in())), fuse_attr_out.self).attr
    }

    func forget(_ node: UInt64, _ count: UInt64 = 1) {
        _ = raw(request(FuseOperation.forget.rawValue, node, wire(count)), room: 0)
    }

    func open(_ node: UInt64, _ flags: Int32 = O_RDONLY, kill: Bool = false) throws -> fuse_open_out {
        value(try send(.open, node, openArguments(flags, kill: kill)), fuse_open_out.self)
    }

    func openArguments(_ flags: Int32, kill: Bool = false) -> [UInt8] {
        var input = fuse_open_in()
        input.flags = UInt32(bitPattern: flags)
        input.open_flags = kill ? 1 : 0
        return wire(input)
    }

    func createArguments(_ name: String, _ flags: Int32 = O_RDWR, mode: UInt32 = 0o644, umask: UInt32 = 0) -> [UInt8] {
        var input = fuse_create_in()
        input.flags = UInt32(bitPattern: flags | O_CREAT)
        input.mode = mode | S_IFREG
        input.umask = umask
        return wire(input) + text(name)
    }

    func create(
        _ parent: UInt64, _ name: String, _ flags: Int32 = O_RDWR, mode: UInt32 = 0o644, umask: UInt32 = 0
    ) throws -> (entry: fuse_entry_out, handle: UInt64) {
        let reply = try send(.create, parent, createArguments(name, flags, mode: mode, umask: umask))
        return (value(reply, fuse_entry_out.self), value(Array(reply.dropFirst(128)), fuse_open_out.self).fh)
    }

    func openDirectory(_ node: UInt64) throws -> UInt64 {
        value(try send(.opendir, node, openArguments(O_RDONLY)), fuse_open_out.self).fh
    }

    func release(_ node: UInt64, _ handle: UInt64, directory: Bool = false) throws {
        var input = fuse_release_in()
        input.fh = handle
        try send(directory ? .releasedir : .release, node, wire(input))
    }

    func readArguments(_ handle: UInt64, _ offset: UInt64, _ size: Int) -> [UInt8] {
        var input = fuse_read_in()
        input.fh = handle
        input.offset = offset
        input.size = UInt32(size)
        return wire(input)
    }

    func read(_ node: UInt64, _ handle: UInt64, _ offset: UInt64, _ size: Int) throws -> [UInt8] {
        try send(.read, node, readArguments(handle, offset, size), room: 16 + size)
    }

    func writeArguments(
        _ handle: UInt64, _ offset: UInt64, _ bytes: [UInt8], flags: UInt32 = 0, openFlags: Int32 = 0
    ) -> [UInt8] {
        var input = fuse_write_in()
        input.fh = handle
        input.offset = offset
        input.size = UInt32(bytes.count)
        input.write_flags = flags
        input.flags = UInt32(bitPattern: openFlags)
        return wire(input) + bytes
    }

    @discardableResult
    func write(
        _ node: UInt64, _ handle: UInt64, _ offset: UInt64, _ bytes: [UInt8], flags: UInt32 = 0, openFlags: Int32 = 0
    ) throws -> Int {
        let arguments = writeArguments(handle, offset, bytes, flags: flags, openFlags: openFlags)
        return Int(value(try send(.write, node, arguments), fuse_write_out.self).size)
    }

    func nodeArguments(_ name: String, _ mode: UInt32, device: UInt32 = 0, umask: UInt32 = 0) -> [UInt8] {
        var input = fuse_mknod_in()
        input.mode = mode
        input.rdev = device
        input.umask = umask
        return wire(input) + text(name)
    }

    func directoryArguments(_ name: String, _ mode: UInt32 = 0o755, umask: UInt32 = 0) -> [UInt8] {
        var input = fuse_mkdir_in()
        input.mode = mode
        input.umask = umask
        return wire(input) + text(name)
    }

    func makeDirectory(_ parent: UInt64, _ name: String, _ mode: UInt32 = 0o755) throws -> fuse_entry_out {
        value(try send(.mkdir, parent, directoryArguments(name, mode)), fuse_entry_out.self)
    }

    /// Makes a file without a name; sends TMPFILE with the name that Linux sends.
    func createUnnamed(
        _ parent: UInt64, _ flags: Int32 = O_RDWR, mode: UInt32 = 0o644
    ) throws -> (entry: fuse_entry_out, handle: UInt64) {
        let reply = try send(.tmpfile, parent, createArguments("/", flags, mode: mode))
        return (value(reply, fuse_entry_out.self), value(Array(reply.dropFirst(128)), fuse_open_out.self).fh)
    }

    func renameArguments(_ from: String, _ newParent: UInt64, _ to: String, _ flags: UInt32 = 0) -> [UInt8] {
        var input = fuse_rename2_in()
        input.newdir = newParent
        input.flags = flags
        return wire(input) + text(from) + text(to)
    }

    func setattr(_ node: UInt64, _ valid: UInt32, _ change: (inout fuse_setattr_in) -> Void) throws -> fuse_attr {
        value(try send(.setattr, node, setattrArguments(valid, change)), fuse_attr_out.self).attr
    }

    func setattrArguments(_ valid: UInt32, _ change: (inout fuse_setattr_in) -> Void = { _ in }) -> [UInt8] {
        var input = fuse_setattr_in()
        input.valid = valid
        change(&input)
        return wire(input)
    }

    struct Dirent {
        var name: String
        var inode: UInt64
        var type: UInt32
        var next: UInt64
        var entry: fuse_entry_out?
    }

    /// All entries of a directory, by as many requests as that takes.
    func list(_ node: UInt64, plus: Bool = false, size: Int = 4096) throws -> [Dirent] {
        let handle = try openDirectory(node)
        var all: [Dirent] = []
        while true {
            let some = try entries(node, handle, from: all.last?.next ?? 0, plus: plus, size: size)
            if some.isEmpty { break }
            all += some
        }
        try release(node, handle, directory: true)
        return all
    }

    /// The entries of an open directory from a position on, by one request.
    func entries(
        _ node: UInt64, _ handle: UInt64, from position: UInt64, plus: Bool = false, size: Int = 4096
    ) throws -> [Dirent] {
        let arguments = readArguments(handle, position, size)
        return dirents(try send(plus ? .readdirplus : .readdir, node, arguments, room: 16 + size), plus: plus)
    }

    private func dirents(_ bytes: [UInt8], plus: Bool) -> [Dirent] {
        var result: [Dirent] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            var entry: fuse_entry_out?
            if plus {
                entry = value(Array(rest), fuse_entry_out.self)
                rest = rest.dropFirst(128)
            }
            let head = Array(rest.prefix(24))
            let length = Int(value(Array(head[16...]), UInt32.self))
            let name = String(decoding: rest.dropFirst(24).prefix(length), as: UTF8.self)
            result.append(
                Dirent(
                    name: name, inode: value(head, UInt64.self), type: value(Array(head[20...]), UInt32.self),
                    next: value(Array(head[8...]), UInt64.self), entry: entry))
            rest = rest.dropFirst((24 + length + 7) & ~7)
        }
        return result
    }

    func xattrArguments(_ name: String, _ value: [UInt8], extended: Bool = true, flags: UInt32 = 0) -> [UInt8] {
        var input = fuse_setxattr_in()
        input.size = UInt32(value.count)
        input.setxattr_flags = flags
        return Array(wire(input).prefix(extended ? 16 : 8)) + text(name) + value
    }

    func getxattrArguments(_ name: String, _ size: UInt32) -> [UInt8] {
        var input = fuse_getxattr_in()
        input.size = size
        return wire(input) + (name.isEmpty ? [] : text(name))
    }
}

/// The bytes of a structure of the wire.
func wire<T: BitwiseCopyable>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value) { Array($0) }
}

/// A structure of the wire from the start of bytes that are long enough.
func value<T: BitwiseCopyable>(_ bytes: [UInt8], _ type: T.Type) -> T {
    precondition(bytes.count >= MemoryLayout<T>.size, "an answer of \(bytes.count) bytes")
    return bytes.withUnsafeBytes { $0.loadUnaligned(as: type) }
}

/// A string with its NUL.
func text(_ string: String) -> [UInt8] { Array(string.utf8) + [0] }
