import Glibc
import LinuxSystem
import Testing

@testable import VhostUser
@testable import Virtio

/// A guest's FUSE client, as small as can be, on the second ring of a machine.
final class FuseGuest: FakeMachine {
    private var unique: UInt64 = 1

    /// The answer to a request, without its header.
    func call(_ operation: UInt32, _ node: UInt64, _ arguments: [UInt8]) throws -> [UInt8] {
        unique += 2
        let header = FakeFrontEnd.bytes(
            UInt32(40 + arguments.count), operation, unique, node, 0 as UInt32, 0 as UInt32, 1 as UInt32, 0 as UInt32)
        let request = FakeMemory.base + 0x20000
        let answer = FakeMemory.base + 0x40000
        memory.write(header + arguments, at: request)
        rings[1].setUsedEvent(rings[1].used)
        rings[1].add([(request, UInt32(40 + arguments.count), false), (answer, 8192, true)])
        kick(1)
        for _ in 0..<5000 {
            if let used = rings[1].takeUsed().first {
                let bytes = memory.read(Int(used.count), at: answer)
                let error =
                    bytes.count >= 16
                    ? bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: Int32.self) } : -1
                #expect(error == 0, "operation \(operation)")
                return Array(bytes.dropFirst(16))
            }
            usleep(1000)
        }
        Issue.record("no answer to operation \(operation)")
        return [UInt8](repeating: 0, count: 16)
    }

    /// Begins the session: FUSE_INIT.
    func begin() throws {
        _ = try call(
            26, 0,
            FakeFrontEnd.bytes(7 as UInt32, 36 as UInt32, 65536 as UInt32, 0 as UInt32)
                + [UInt8](repeating: 0, count: 48))
    }

    /// The node of `name` in a directory: FUSE_LOOKUP.
    func lookUp(_ name: String, in node: UInt64 = 1) throws -> UInt64 {
        let entry = Array(try call(1, node, Array(name.utf8) + [0]).prefix(8))
        return entry.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    }

    /// What is in a file, 4 KiB at most: FUSE_OPEN and FUSE_READ.
    func contents(_ node: UInt64) throws -> [UInt8] {
        let opened = Array(try call(14, node, FakeFrontEnd.bytes(UInt32(O_RDONLY), 0 as UInt32)).prefix(8))
        let handle = opened.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        return try call(
            15, node,
            FakeFrontEnd.bytes(
                handle, 0 as UInt64, 4096 as UInt32, 0 as UInt32, 0 as UInt64, 0 as UInt32, 0 as UInt32))
    }
}
