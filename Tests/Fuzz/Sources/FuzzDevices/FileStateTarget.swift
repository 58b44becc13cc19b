import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import FileService

/// The state of a file server as it is read from a file, restored by a server over a directory.
///
/// Whatever it says, what lies beside the share does not change.
final class FileStateTarget: FuzzTarget {
    private let scratch: ShareDirectory
    private let replies = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
    /// A state with each kind of node and handle.
    private let valid: ServerState

    init() throws {
        scratch = try ShareDirectory()
        typealias Node = ServerState.Node
        func file(_ type: UInt32, _ parent: Int, _ name: String) -> Node {
            Node(generation: 1, kind: .file, lookups: 1, type: type, parent: parent, name: Array(name.utf8))
        }
        valid = ServerState(
            session: .init(submounts: true, setxattrExtended: true, home: "fs", nextID: 4),
            fileSystems: [.init(id: 1, name: "fs", slot: 2)],
            shares: [
                .init(id: 2, name: "data", fileSystem: 1, slot: 3), .init(id: 3, name: "fixed", fileSystem: 1, slot: 4),
            ],
            nodes: [
                Node(generation: 1, kind: .synthetic, lookups: 1), file(S_IFDIR, 0, ""), file(S_IFDIR, 3, "directory"),
                file(S_IFREG, 3, "file"), file(S_IFLNK, 3, "out"), Node(generation: 7, kind: .free),
                Node(generation: 2, kind: .stale, lookups: 2), file(S_IFREG, 4, "gone"),
            ],
            handles: [
                .init(generation: 1, node: 5, flags: O_RDWR), .init(generation: 3), .init(generation: 1, node: 4),
                .init(generation: 1, node: 5, flags: O_RDONLY | O_DSYNC),
            ])
    }

    private func server() throws -> FileServer {
        var options = FileServer.Options()
        options.descriptorLimit = 64
        options.maximumNodes = 64
        let server = try FileServer(proc: try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY), options: options)
        for (name, path, readOnly) in [("data", "/share", false), ("fixed", "/share/directory", true)] {
            let share = try OwnedDescriptor.open(scratch.path + path, martlet_O_PATH | O_DIRECTORY)
            try server.addShare(name: "fs/\(name)", descriptor: share, readOnly: readOnly)
        }
        return server
    }

    /// Input: bytes as they are; or changes of a valid state: where, how many bytes, and what; and where it is cut off.
    func run(_ input: inout Input) throws {
        try scratch.restore()
        let kind = input.byte()
        var bytes = kind < 20 ? input.rest() : valid.encoded()
        for _ in 0..<(kind < 20 ? 0 : Int(kind % 8)) where !input.isEmpty {
            let position = Int(input.word()) % bytes.count
            let value = input.number64()
            for offset in 0..<input.pick([1, 2, 4, 8]) where bytes.indices.contains(position + offset) {
                bytes[position + offset] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(offset)))
            }
        }
        if input.byte() > 240 { bytes.removeLast(min(bytes.count, Int(input.word()))) }
        let read = try? ServerState(bytes, maximumNodes: 63, maximumHandles: 64)
        if let read { require(read.encoded() == bytes, "a state that was read is written otherwise") }
        let server = try server()
        do { try server.restore(bytes) } catch {
            require(server.shares.isEmpty && server.nodes.count == 1, "something is left of a state that was refused")
            return
        }
        require(read != nil, "a state that can't be read was restored")
        for slot in server.nodes.slots.indices where server.nodes.slots[slot].inUse {
            let node = server.nodes.number(slot)
            send(server, .getattr, node, wire(fuse_getattr_in()))
            send(server, .lookup, node, Array("file\0".utf8))
            send(server, .unlink, node, Array("secret\0".utf8))
            for (number, handle) in server.handles.slots.enumerated() {
                var request = fuse_write_in()
                request.fh = UInt64(handle.generation) << 32 | UInt64(number)
                request.size = 1
                send(server, .write, node, wire(request) + [0x55])
            }
        }
        // What the host took away since is refused or stale.
        _ = try? server.save()
        send(server, .destroy, 0, [])
        require(server.handles.count == 0, "\(server.handles.count) handles are left")
        require(server.nodes.count == 4, "\(server.nodes.count) nodes are left")
        scratch.requireUntouched()
    }

    private func send(_ server: FileServer, _ operation: FuseOperation, _ node: UInt64, _ arguments: [UInt8]) {
        var header = fuse_in_header()
        header.len = UInt32(40 + arguments.count)
        header.opcode = operation.rawValue
        header.nodeid = node
        var request = wire(header) + arguments
        request.withUnsafeMutableBytes { bytes in
            let readable = [iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)]
            let writable = [iovec(iov_base: replies.baseAddress, iov_len: replies.count)]
            readable.withUnsafeBufferPointer { readable in
                writable.withUnsafeBufferPointer { _ = server.handle(readable: readable, writable: $0) }
            }
        }
    }
}
