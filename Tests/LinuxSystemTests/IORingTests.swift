import CLinux
import Glibc
import LinuxSystem
import Testing

private let isPossible = (try? IORing(capacity: 2)) != nil

@Suite(.enabled(if: isPossible, "the host has no io_uring"))
struct IORingTests {
    private func scratch(_ text: String) throws -> OwnedDescriptor {
        let file = try OwnedDescriptor.memory("ring", size: 0)
        try writeAll(Array(text.utf8), to: file.raw, "ring")
        return file
    }

    @Test func readsWritesAndFlushes() throws {
        let ring = try IORing(capacity: 4)
        #expect(ring.capacity == 4 && !ring.hasCompletions)
        let file = try scratch("0123456789")
        var first = Array("ab".utf8)
        var second = [UInt8](repeating: 0, count: 4)
        try first.withUnsafeMutableBytes { one in
            try second.withUnsafeMutableBytes { two in
                let vector = [
                    iovec(iov_base: two.baseAddress, iov_len: 2),
                    iovec(iov_base: two.baseAddress.map { $0 + 2 }, iov_len: 2),
                ]
                var results: [UInt64: Int32] = [:]
                func finish(_ count: Int) throws {
                    var left = count
                    while left > 0 {
                        try ring.submit(waitFor: 1)
                        ring.reap { tag, result in
                            results[tag] = result
                            left -= 1
                        }
                    }
                }
                // More than the ring has entries, in turns.
                for round in 0..<20 {
                    ring.prepare(.write, file: file.raw, address: one.baseAddress, count: 2, offset: 4, tag: 1)
                    #expect(ring.hasUnsubmitted)
                    try finish(1)
                    #expect(!ring.hasUnsubmitted)
                    try vector.withUnsafeBufferPointer { vector in
                        ring.prepare(
                            .readVector, file: file.raw, address: vector.baseAddress, count: 2, offset: 3, tag: 2)
                        ring.prepare(.flush, file: file.raw, tag: 3)
                        ring.prepare(.read, file: -1, address: one.baseAddress, count: 1, tag: UInt64.max)
                        try finish(3)
                    }
                    #expect(results == [1: 2, 2: 4, 3: 0, .max: -EBADF], "round \(round)")
                    results = [:]
                }
            }
        }
        #expect(second == Array("3ab6".utf8))
    }

    /// The descriptor is readable as long as a completion has not been taken.
    @Test func itCanBeWaitedFor() throws {
        let ring = try IORing(capacity: 2)
        let file = try scratch("x")
        func isReadable() -> Bool {
            var item = pollfd(fd: ring.descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&item, 1, 0) == 1
        }
        #expect(!isReadable())
        var byte: UInt8 = 0
        try withUnsafeMutableBytes(of: &byte) { bytes in
            ring.prepare(.read, file: file.raw, address: bytes.baseAddress, count: 1, tag: 1)
            try ring.submit(waitFor: 1)
        }
        #expect(isReadable() && ring.hasCompletions && byte == UInt8(ascii: "x"))
        ring.reap { _, _ in }
        #expect(!isReadable() && !ring.hasCompletions)
    }

    /// Whoever writes the ring's memory by itself gets nothing but what the ring was made for.
    @Test func otherOperationsAreRefused() throws {
        var layout = martlet_ring_layout()
        let allowed = [martlet_ring_read]
        let ring = OwnedDescriptor(owning: try check("ring", "", martlet_ring_setup(4, allowed, 1, &layout)))
        let queues = try Mapping(file: ring.raw, count: Int(layout.queues_size))
        let entries = try Mapping(
            file: ring.raw, offset: martlet_ring_entries_offset, count: Int(layout.entries_size))
        let file = try scratch("text")
        var buffer = [UInt8](repeating: 0, count: 4)
        // READ, WRITE, OPENAT, SOCKET, NOP.
        for (index, operation) in [martlet_ring_read, martlet_ring_write, 18, 45, 0].enumerated() {
            buffer.withUnsafeMutableBytes { bytes in
                martlet_ring_prepare(
                    entries.base, operation, file.raw, bytes.baseAddress, 4, 0, 0, UInt64(index))
                (queues.base + Int(layout.submission_array)).storeBytes(of: 0, as: UInt32.self)
                (queues.base + Int(layout.submission_array) + 4 * (index % 4)).storeBytes(of: 0, as: UInt32.self)
                (queues.base + Int(layout.submission_tail)).storeBytes(of: UInt32(index + 1), as: UInt32.self)
                #expect(martlet_ring_enter(ring.raw, 1, 1) == 1)
            }
            var tag: UInt64 = 0
            let place =
                Int(layout.completion_entries) + index % Int(layout.completions) * Int(martlet_ring_completion_size)
            let result = martlet_ring_completion(queues.base + place, &tag)
            (queues.base + Int(layout.completion_head)).storeBytes(of: UInt32(index + 1), as: UInt32.self)
            #expect(tag == UInt64(index) && result == (index == 0 ? 4 : -EACCES), "operation \(operation)")
        }
    }
}
