import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The queue against drivers that keep the rules.
@Suite struct VirtqueueTests {
    static let data = FakeMemory.base + 0x10000

    static func queue(
        size: UInt32 = 8, features: RingFeatures = .all, position: UInt16 = 0
    ) throws -> (FakeMemory, FakeRing, Virtqueue) {
        let memory = try FakeMemory()
        let ring = FakeRing(memory, at: FakeMemory.base, size: size, position: position)
        let queue = Virtqueue()
        try queue.start(ring.geometry, memory: memory.guest, features: features, position: position)
        return (memory, ring, queue)
    }

    @Test func aChainIsItsReadablePartThenItsWritablePart() throws {
        let (memory, ring, queue) = try Self.queue()
        #expect(try !queue.next())
        memory.write(Array("hello world".utf8), at: Self.data)
        let head = ring.add([
            (Self.data, 5, false), (Self.data + 5, 0, false), (Self.data + 5, 6, false), (Self.data + 0x100, 3, true),
            (Self.data + 0x200, 0, true), (Self.data + 0x300, 4, true),
        ])
        #expect(try queue.next())
        #expect(queue.readable.count == 2 && queue.writable.count == 2)
        #expect(queue.readableBytes == 11 && queue.writableBytes == 7)
        var bytes = [UInt8](repeating: 0, count: 11)
        #expect(Vectors.copyOut(queue.readable, to: &bytes, count: 11) == 11)
        #expect(bytes == Array("hello world".utf8))
        #expect(Vectors.copyIn(Array("1234567".utf8), count: 7, to: queue.writable) == 7)
        #expect(ring.takeUsed().isEmpty)
        queue.complete(written: 7)
        let used = ring.takeUsed()
        #expect(used.count == 1 && used.first?.head == UInt32(head) && used.first?.count == 7)
        #expect(memory.read(3, at: Self.data + 0x100) == Array("123".utf8))
        #expect(memory.read(4, at: Self.data + 0x300) == Array("4567".utf8))
        #expect(try !queue.next())
    }

    @Test func aChainMayGoOnInATableThatLiesAnywhere() throws {
        let (_, ring, queue) = try Self.queue()
        for table in [Self.data, Self.data + 8, Self.data + 3] {
            ring.setDescriptor(0, Self.data + 0x1000, 2, 0, next: 1, table: table)
            ring.setDescriptor(0, Self.data + 0x1000, 2, FakeRing.next, next: 2, table: table)
            ring.setDescriptor(2, Self.data + 0x2000, 4, FakeRing.write, table: table)
            ring.setDescriptor(3, Self.data + 0x3000, 1, FakeRing.next, next: 4)
            ring.setDescriptor(4, table, 48, FakeRing.indirect)
            ring.publish(3)
            #expect(try queue.next())
            #expect(queue.readableBytes == 3 && queue.writableBytes == 4)
            queue.complete(written: 0)
        }
    }

    @Test func indicesWrap() throws {
        let (_, ring, queue) = try Self.queue(size: 4, position: 65000)
        for number in 0..<70000 {
            let head = ring.add([(Self.data, 1, true)])
            let taken = try queue.next()
            queue.complete(written: 1)
            let used = ring.takeUsed()
            guard taken, used.count == 1, used[0].head == UInt32(head) else {
                Issue.record("chain \(number)")
                return
            }
        }
        #expect(queue.position == UInt16(truncatingIfNeeded: 65000 + 70000))
    }

    @Test func aChainPutBackComesAgain() throws {
        let (_, ring, queue) = try Self.queue()
        let head = ring.add([(Self.data, 9, true)])
        #expect(try queue.next())
        queue.putBack()
        #expect(queue.position == 0)
        #expect(queue.writable.isEmpty)
        #expect(try queue.next())
        queue.complete(written: 9)
        #expect(ring.takeUsed().map(\.head) == [UInt32(head)])
    }

    @Test func aBufferMaySpanRegionsThatMeet() throws {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let file = try OwnedDescriptor.memory("regions", size: Int64(4 * page))
        // In the file they are far apart, in the guest they are neighbours.
        let guest = try GuestMemory([
            MemoryRegion(
                guestAddress: UInt64(page), userAddress: 0x2000_0000,
                mapping: Mapping(file: file.raw, offset: 0, count: page)),
            MemoryRegion(
                guestAddress: 0, userAddress: 0x1000_0000,
                mapping: Mapping(file: file.raw, offset: Int64(3 * page), count: page)),
        ])
        let view = try Mapping(file: file.raw, count: 4 * page)
        let table = view.base + 3 * page
        table.storeBytes(of: UInt64(page - 4), as: UInt64.self)
        (table + 8).storeBytes(of: UInt32(8), as: UInt32.self)
        (table + 12).storeBytes(of: UInt32(0), as: UInt32.self)
        (table + 16 * 2 + 2).storeBytes(of: UInt16(1), as: UInt16.self)
        memcpy(view.base + 4 * page - 4, "abcd", 4)
        memcpy(view.base, "efgh", 4)
        let queue = Virtqueue()
        try queue.start(
            QueueGeometry(size: 2, descriptorTable: 0, availableRing: 32, usedRing: 64), memory: guest,
            features: .all, position: 0)
        #expect(try queue.next())
        #expect(queue.readable.count == 2)
        var bytes = [UInt8](repeating: 0, count: 8)
        #expect(Vectors.copyOut(queue.readable, to: &bytes, count: 8) == 8)
        #expect(bytes == Array("abcdefgh".utf8))
        #expect(guest.guestAddress(ofUser: 0x2000_0010) == UInt64(page) + 16)
        #expect(guest.guestAddress(ofUser: 0x1000_0000 + UInt64(page)) == nil)
    }

    @Test func regionsMustNotOverlapOrWrap() throws {
        let file = try OwnedDescriptor.memory("regions", size: 8192)
        func region(_ address: UInt64) throws -> MemoryRegion {
            try MemoryRegion(guestAddress: address, userAddress: 0, mapping: Mapping(file: file.raw, count: 8192))
        }
        #expect(throws: MemoryError.overlap(0x1000, 0x2000)) { try GuestMemory([region(0x2000), region(0x1000)]) }
        #expect(throws: MemoryError.overlap(0x1000, 0x1000)) { try GuestMemory([region(0x1000), region(0x1000)]) }
        #expect(throws: MemoryError.self) { try region(UInt64.max - 4096) }
    }

    @Test func bytesAreLentOnlyWithinARegion() throws {
        let memory = try FakeMemory(count: 8192)
        #expect(memory.guest.withBytes(at: FakeMemory.base, count: 8192) { $0.count } == 8192)
        #expect(memory.guest.withBytes(at: FakeMemory.base + 1, count: 8192) { $0.count } == nil)
        #expect(memory.guest.withBytes(at: FakeMemory.base, count: -1) { $0.count } == nil)
        #expect(memory.guest.withBytes(at: UInt64.max, count: 1) { $0.count } == nil)
    }

    @Test func aResetForgetsTheChainInWork() throws {
        let (memory, ring, queue) = try Self.queue()
        ring.add([(Self.data, 64, true)])
        #expect(try queue.next())
        queue.stop()
        let before = memory.read(memory.count, at: FakeMemory.base)
        // The request in work ends late: the guest's memory is no longer the device's to write.
        #expect(queue.writable.isEmpty)
        queue.complete(written: 64)
        queue.putBack()
        #expect(!queue.needsInterrupt() && !queue.armKick())
        #expect(memory.read(memory.count, at: FakeMemory.base) == before)
        #expect(throws: QueueError.stopped) { try queue.next() }
        try queue.start(ring.geometry, memory: memory.guest, features: .all, position: 0)
        #expect(try queue.next())
    }

    @Test func moreIsNeverToldThanWasThere() throws {
        let (_, ring, queue) = try Self.queue()
        ring.add([(Self.data, 10, true)])
        #expect(try queue.next())
        queue.complete(written: 4000)
        #expect(ring.takeUsed().first?.count == 10)
    }
}
