import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The block device with drivers that break the rules: no wrong request reaches the file, each that has a status gets
/// an error in it, and the next good one is served.
@Suite struct HostileBlockTests {
    private static let blocks = 64
    private static let size = 512 * blocks

    private func disk(readOnly: Bool = false, features: UInt64? = nil) throws -> FakeDisk {
        try FakeDisk(FakeDisk.scratch(Self.size), readOnly: readOnly, features: features)
    }

    /// The file is as it was, and the device still works.
    private func expectWhole(_ disk: FakeDisk, location: SourceLocation = #_sourceLocation) throws {
        #expect(disk.content() == FakeDisk.pattern(Self.size), sourceLocation: location)
        #expect(try disk.ask(0, 5, room: 512) == .done(512), sourceLocation: location)
    }

    @Test func rangesBeyondTheDisk() throws {
        let disk = try disk()
        let big = UInt64.max / 512
        for sector in [64, 65, 63, 1 << 32, 1 << 54, 1 << 55, big - 1, big, big + 1, .max - 1, .max] as [UInt64] {
            #expect(try disk.ask(0, sector, room: 1024) == .failed())
            #expect(try disk.ask(1, sector, sending: [UInt8](repeating: 0, count: 1024)) == .failed())
            for sectors: UInt32 in [2, 1 << 15] {
                #expect(try disk.ask(11, sending: FakeDisk.range(sector, sectors)) == .failed())
                #expect(try disk.ask(13, sending: FakeDisk.range(sector, sectors)) == .failed())
                #expect(try disk.ask(13, sending: FakeDisk.range(sector, sectors, flags: 1)) == .failed())
            }
        }
        #expect(try disk.ask(0, 65) == .failed())
        #expect(try disk.ask(0, .max) == .failed())
        try expectWhole(disk)
    }

    @Test func lengthsThatAreNoSectors() throws {
        let disk = try disk()
        for count in [1, 15, 511, 513, 1023, 1025] {
            #expect(try disk.ask(0, room: count) == .failed())
            #expect(try disk.ask(1, sending: [UInt8](repeating: 0, count: count)) == .failed())
        }
        try expectWhole(disk)
    }

    /// More than the device says a request may have: on a disk that has it, it is an error and no work.
    @Test func hugeRequests() throws {
        let file = try FakeDisk.scratch(512)
        ftruncate(file.raw, 1 << 40)
        let disk = try FakeDisk(file)
        let table = FakeDisk.payload + 0x1000
        func huge(_ type: UInt32, count: UInt32, flags: UInt16) throws -> FakeDisk.Answer {
            disk.writeHeader(type, 0)
            disk.memory.store(FakeDisk.untouched, at: FakeDisk.status)
            disk.ring.setDescriptor(0, FakeDisk.header, 16, 1, next: 1, table: table)
            for index: UInt16 in 1...1000 {
                disk.ring.setDescriptor(index, FakeMemory.base, count, flags | 1, next: index + 1, table: table)
            }
            disk.ring.setDescriptor(1001, FakeDisk.status, 1, 2, table: table)
            disk.ring.setDescriptor(9, table, 16 * 1002, FakeRing.indirect)
            disk.ring.publish(9)
            return .init(status: disk.memory.load(UInt8.self, at: FakeDisk.status), used: try disk.serve()[0].count)
        }
        // 4 GB, which a 32-bit length just holds, and a little more than the limit of 15.75 MiB.
        for count: UInt32 in [4_000_256, 16896] {
            #expect(try huge(0, count: count, flags: 2).used == 1)
            #expect(disk.memory.load(UInt8.self, at: FakeDisk.status) == 1)
            #expect(try huge(1, count: count, flags: 0).used == 1)
            #expect(disk.memory.load(UInt8.self, at: FakeDisk.status) == 1)
        }
        let tooMany = (0..<17).flatMap { _ in FakeDisk.range(0, 1) }
        #expect(try disk.ask(11, sending: tooMany) == .failed())
        #expect(try disk.ask(13, sending: FakeDisk.range(0, 1) + FakeDisk.range(0, 1)) == .failed())
        #expect(try disk.ask(11, sending: FakeDisk.range(0, 1 << 21 + 1)) == .failed())
        #expect(try disk.ask(13, sending: FakeDisk.range(0, 1 << 15 + 1)) == .failed())
        for flags: UInt32 in [0, 1] {
            #expect(try disk.ask(13, sending: FakeDisk.range(0, .max, flags: flags)) == .failed())
        }
        var first = [UInt8](repeating: 0, count: 512)
        #expect(pread(file.raw, &first, 512, 0) == 512 && first == FakeDisk.pattern(512))
    }

    @Test func wrongDirections() throws {
        let disk = try disk()
        let (header, payload, status) = (FakeDisk.header, FakeDisk.payload, FakeDisk.status)
        disk.memory.write([UInt8](repeating: 0, count: 4096), at: payload)
        for type: UInt32 in [0, 4, 8] {
            // What should be written to is readable.
            disk.writeHeader(type, 0)
            #expect(try disk.ask([(header, 16, false), (payload, 512, false), (status, 1, true)]) == .failed())
        }
        for type: UInt32 in [1, 4, 11, 13] {
            // What should be readable can only be written to.
            disk.writeHeader(type, 0)
            #expect(try disk.ask([(header, 16, false), (payload, 512, true), (status, 1, true)]) == .failed())
        }
        disk.writeHeader(1, 0)
        #expect(
            try disk.ask([(header, 16, false), (payload, 512, false), (payload, 512, true), (status, 1, true)])
                == .failed())
        try expectWhole(disk)
    }

    /// Without a place for the status nothing is done and nothing written.
    @Test func requestsWithoutAStatus() throws {
        let disk = try disk()
        let (header, payload) = (FakeDisk.header, FakeDisk.payload)
        disk.memory.write([UInt8](repeating: 0, count: 4096), at: payload)
        disk.memory.write(FakeDisk.range(0, 64), at: payload)
        for type: UInt32 in [0, 1, 4, 8, 11, 13, 99] {
            disk.writeHeader(type, 0)
            #expect(try disk.ask([(header, 16, false)]) == .undone)
            #expect(try disk.ask([(header, 16, false), (payload, 16, false)]) == .undone)
            #expect(try disk.ask([(header, 16, false), (payload, 512, false), (FakeDisk.status, 0, true)]) == .undone)
        }
        #expect(try disk.ask([(0, 0, false), (0, 0, true)]) == .undone)
        try expectWhole(disk)
    }

    @Test func headersThatAreTooShort() throws {
        let disk = try disk()
        disk.writeHeader(1, 0)
        for count: UInt32 in [0, 1, 4, 8, 15] {
            #expect(try disk.ask([(FakeDisk.header, count, false), (FakeDisk.status, 1, true)]) == .failed())
        }
        // All of it writable: the last byte is the status.
        #expect(try disk.ask([(FakeDisk.header, 16, true), (FakeDisk.status, 1, true)]) == .failed())
        disk.memory.store(FakeDisk.untouched, at: FakeDisk.payload + 511)
        disk.ring.add([(FakeDisk.payload, 512, true)])
        #expect(try disk.serve().map(\.count) == [1])
        #expect(disk.memory.load(UInt8.self, at: FakeDisk.payload + 511) == 1)
        try expectWhole(disk)
    }

    @Test func unknownTypes() throws {
        let disk = try disk()
        // Old SCSI and barrier commands, lifetime, secure erase, zones, and numbers that nobody has.
        for type: UInt32 in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 1 << 31, 1 << 31 | 1, .max] {
            #expect(try disk.ask(type, sending: FakeDisk.range(0, 1)) == .unsupported)
            #expect(try disk.ask(type, room: 512) == .unsupported)
        }
        try expectWhole(disk)
    }

    @Test func oddRanges() throws {
        let disk = try disk()
        for type: UInt32 in [11, 13] {
            for count in [0, 1, 8, 15, 17, 24] {
                #expect(
                    try disk.ask(type, sending: Array(FakeDisk.range(0, 1) + FakeDisk.range(1, 1)).prefix(count) + [])
                        == .failed())
            }
            for flags: UInt32 in [2, 3, 4, 0x8000_0000, .max] {
                #expect(try disk.ask(type, sending: FakeDisk.range(0, 8, flags: flags)) == .unsupported)
            }
        }
        // Only writing zeroes may unmap.
        #expect(try disk.ask(11, sending: FakeDisk.range(0, 8, flags: 1)) == .unsupported)
        // Nothing is done of a request of which a part is wrong, wherever that is.
        let good = FakeDisk.range(0, 8)
        #expect(try disk.ask(11, sending: good + FakeDisk.range(64, 1)) == .failed())
        #expect(try disk.ask(11, sending: good + FakeDisk.range(0, 8, flags: 2)) == .unsupported)
        #expect(try disk.ask(11, sending: FakeDisk.range(64, 1) + FakeDisk.range(0, 8, flags: 2)) == .unsupported)
        try expectWhole(disk)
    }

    @Test func aNameInTooLittleRoom() throws {
        let disk = try disk()
        for room in [0, 1, 19] { #expect(try disk.ask(8, room: room) == .failed()) }
        try expectWhole(disk)
    }

    /// The device keeps a read-only disk so by itself: the file is open for writing, and the driver claims features
    /// that it was not offered.
    @Test func readOnly() throws {
        let disk = try disk(readOnly: true, features: .max & ~RingFeatures.all.rawValue)
        #expect(try disk.ask(1, 0, sending: [UInt8](repeating: 0, count: 512)) == .failed())
        #expect(try disk.ask(1, 0) == .failed())
        for type: UInt32 in [11, 13] {
            for flags: UInt32 in [0, 1] {
                #expect(try disk.ask(type, sending: FakeDisk.range(0, 8, flags: flags)) == .failed())
            }
        }
        #expect(try disk.ask(4) == .done())
        #expect(try disk.ask(8, room: 20) == .done(20))
        try expectWhole(disk)
    }

    @Test func anEmptyDisk() throws {
        let disk = try FakeDisk(FakeDisk.scratch(511))
        #expect(try disk.ask(0, 0, room: 512) == .failed())
        #expect(try disk.ask(1, 0, sending: [UInt8](repeating: 0, count: 512)) == .failed())
        #expect(try disk.ask(0, 0) == .done())
        #expect(disk.content() == FakeDisk.pattern(511))
    }

    /// Whatever a guest asks for, with whatever ring: the device goes on, what lies beyond the disk's last sector
    /// stays, the file keeps its size, and a read-only one its bytes. The process doesn't grow.
    @Test(arguments: [false, true], [false, true]) func fuzz(readOnly: Bool, usesRing: Bool) throws {
        let disk = try FakeDisk(
            FakeDisk.scratch(Self.size + 300, in: "/dev/shm"), readOnly: readOnly, usesRing: usesRing)
        var random = Seeded(readOnly ? 7 : 8)
        let end = ContinuousClock.now + .milliseconds(1500)
        var (requests, broken, done) = (0, 0, 0)
        var memory = 0
        while ContinuousClock.now < end || requests < 20_000 {
            requests += 1
            if requests == 5000 { memory = residentBytes() }
            makeRequest(disk, &random)
            do {
                for used in try disk.serve() where used.count > 0 { done += 1 }
            } catch {
                broken += 1
                try disk.restart(features: random.next() & (1 << 9 | 1 << 13 | 1 << 14))
            }
        }
        #expect(done > 1000 && broken > 100, "\(requests) requests, \(done) answered, \(broken) broken rings")
        #expect(residentBytes() < memory + 8 << 20)
        let content = disk.content()
        #expect(content.count == Self.size + 300)
        #expect(Array(content[Self.size...]) == FakeDisk.pattern(300, from: Self.size))
        #expect(!readOnly || content == FakeDisk.pattern(Self.size + 300))
    }

    /// A request that is nearly right, in a chain that is nearly right.
    private func makeRequest(_ disk: FakeDisk, _ random: inout Seeded) {
        func chance(_ n: Int) -> Bool { Int.random(in: 0..<n, using: &random) == 0 }
        let types: [UInt32] = [0, 1, 4, 8, 11, 13]
        var type = types[Int.random(in: 0..<types.count, using: &random)]
        if chance(20) { type = UInt32(truncatingIfNeeded: random.next()) }
        var sector = UInt64.random(in: 0..<UInt64(Self.blocks), using: &random)
        if chance(8) { sector = random.next() >> UInt64.random(in: 0..<64, using: &random) }
        disk.writeHeader(type, sector)
        let flags = chance(10) ? UInt32(truncatingIfNeeded: random.next()) : 0
        let count = chance(10) ? UInt32(truncatingIfNeeded: random.next()) : UInt32.random(in: 0..<16, using: &random)
        disk.memory.write(FakeDisk.range(chance(8) ? random.next() : sector, count, flags: flags), at: FakeDisk.payload)
        var buffers: [(address: UInt64, count: UInt32, isWritable: Bool)] = [
            (FakeDisk.header, chance(20) ? UInt32.random(in: 0..<20, using: &random) : 16, false)
        ]
        let isWritable = chance(10) ? chance(2) : type == 0 || type == 8
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            var size = UInt32.random(in: 0...4, using: &random) * 512
            if type == 8 { size = 20 }
            if type == 11 || type == 13 { size = 16 }
            if chance(8) { size = UInt32.random(in: 0..<5000, using: &random) }
            if chance(200) { size = UInt32(truncatingIfNeeded: random.next()) }
            buffers.append((chance(300) ? random.next() : FakeDisk.payload, size, isWritable))
        }
        if !chance(20) { buffers.append((FakeDisk.status, chance(20) ? 0 : 1, !chance(50))) }
        if chance(100) { disk.ring.setAvailable(disk.ring.available &+ UInt16(truncatingIfNeeded: random.next())) }
        disk.ring.add(buffers)
    }
}
