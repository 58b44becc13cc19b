import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import FileService

/// Sequences of FUSE requests with numbers of nodes and handles that the server gave, on a file server over a directory.
///
/// Every execution starts with the same files. None may change, or read, what lies beside the share.
final class FuseTarget: FuzzTarget {
    private static let steps = 48
    private let server: FileServer
    private let scratch: ShareDirectory
    private let replies = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    private var nodes: [UInt64] = []
    private var handles: [UInt64] = []
    private var unique: UInt64 = 0

    init() throws {
        scratch = try ShareDirectory()
        try scratch.restore()
        var options = FileServer.Options()
        options.descriptorLimit = 128
        options.maximumNodes = 512
        server = try FileServer(proc: try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY), options: options)
        let share = try OwnedDescriptor.open(scratch.path + "/share", martlet_O_PATH | O_DIRECTORY)
        try server.addShare(name: "fs/data", descriptor: share, readOnly: false)
        let readOnly = try OwnedDescriptor.open(scratch.path + "/share/directory", martlet_O_PATH | O_DIRECTORY)
        try server.addShare(name: "fs/fixed", descriptor: readOnly, readOnly: true)
    }

    func run(_ input: inout Input) throws {
        try scratch.restore()
        (nodes, handles) = ([1], [])
        _ = send(.initialize, 0, FuseRequests.initialize(&input), room: 128)
        look(up: ["fs", "data", "file"])
        look(up: ["fs", "data", "directory"])
        look(up: ["fs", "fixed"])
        for _ in 0..<Self.steps where !input.isEmpty { step(&input) }
        _ = send(.destroy, 0, [], room: 64)
        require(server.handles.count == 0, "\(server.handles.count) handles are left")
        require(geteuid() == 0 && getegid() == 0, "the process is still another user")
        scratch.requireUntouched()
    }

    private func look(up path: [String]) {
        var node: UInt64 = 1
        for name in path {
            let before = nodes.count
            _ = send(.lookup, node, Array(name.utf8) + [0], room: 256)
            guard nodes.count > before, let last = nodes.last else { return }
            node = last
        }
    }

    private func step(_ input: inout Input) {
        let operation = input.pick(FuseRequests.operations)
        let node = input.byte() > 8 ? input.pick(nodes) : input.number64()
        let handle = input.byte() > 8 && !handles.isEmpty ? input.pick(handles) : input.number64()
        var arguments = FuseRequests.arguments(operation, handle: handle, nodes: nodes, &input)
        let change = input.byte()
        if change > 240, !arguments.isEmpty { arguments.removeLast(Int(input.byte()) % arguments.count) }
        if change < 8 { arguments += input.take(32) }
        let rooms = [0, 15, 16, 64, 160, 4096, 4096, 32 << 10]
        _ = send(
            operation, node, arguments, room: rooms[Int(change >> 1) % rooms.count],
            user: change & 1 == 0 ? 0 : UInt32(input.byte()), length: change == 100 ? input.number() : nil)
    }

    /// Sends a request in two pieces and takes a reply in two, and notes the numbers that it has.
    private func send(
        _ operation: FuseOperation, _ node: UInt64, _ arguments: [UInt8], room: Int, user: UInt32 = 0,
        length: UInt32? = nil
    ) -> UInt32 {
        unique += 1
        var header = fuse_in_header()
        header.len = length ?? UInt32(40 + arguments.count)
        header.opcode = operation.rawValue
        header.unique = unique
        header.nodeid = node
        header.uid = user
        header.gid = user
        var request = wire(header) + arguments
        let used = request.withUnsafeMutableBytes { bytes -> UInt32 in
            let readable = pieces(bytes, cut: 40)
            let writable = pieces(UnsafeMutableRawBufferPointer(rebasing: replies[..<room]), cut: 16)
            return readable.withUnsafeBufferPointer { readable in
                writable.withUnsafeBufferPointer { server.handle(readable: readable, writable: $0) }
            }
        }
        require(used == 0 || used >= 16 && Int(used) <= room, "\(operation): \(used) bytes in \(room)")
        guard used >= 16, let base = replies.baseAddress else { return used }
        let reply = base.loadUnaligned(as: fuse_out_header.self)
        require(reply.len == used && reply.unique == unique, "\(operation): \(reply)")
        require(reply.error <= 0 && reply.error > -4096, "\(operation): error \(reply.error)")
        if reply.error == 0 { note(operation, base + 16, Int(used) - 16) }
        return used
    }

    private func pieces(_ bytes: UnsafeMutableRawBufferPointer, cut: Int) -> [iovec] {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return [] }
        if bytes.count <= cut { return [iovec(iov_base: base, iov_len: bytes.count)] }
        return [iovec(iov_base: base, iov_len: cut), iovec(iov_base: base + cut, iov_len: bytes.count - cut)]
    }

    private func note(_ operation: FuseOperation, _ payload: UnsafeMutableRawPointer, _ count: Int) {
        if nodes.count > 64 { nodes.removeSubrange(4..<32) }
        if handles.count > 64 { handles.removeFirst(32) }
        switch operation {
        case .lookup, .mknod, .mkdir, .symlink, .link:
            if count >= 128 { nodes.append(payload.loadUnaligned(as: UInt64.self)) }
        case .create, .tmpfile:
            if count >= 144 {
                nodes.append(payload.loadUnaligned(as: UInt64.self))
                handles.append(payload.loadUnaligned(fromByteOffset: 128, as: UInt64.self))
            }
        case .open, .opendir: if count >= 16 { handles.append(payload.loadUnaligned(as: UInt64.self)) }
        default: break
        }
    }
}
