import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The block device with a driver that keeps the rules, over a file.
@Suite struct BlockTests {
    private static let blocks = 64
    private static let size = 512 * blocks

    /// Fields of the configuration space (virtio 1.2, 5.2.4).
    private func field<T: FixedWidthInteger>(_ device: BlockDevice, _ offset: Int, _: T.Type = UInt32.self) -> T {
        device.configuration.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    @Test func featuresAndConfiguration() throws {
        // The last part of a sector is no part of the disk.
        let disk = try FakeDisk(FakeDisk.scratch(Self.size + 511))
        let device = disk.device
        #expect(device.features == 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 13 | 1 << 14)
        #expect(device.configuration.count == 96)
        #expect(field(device, 0, UInt64.self) == UInt64(Self.blocks))
        #expect(field(device, 8) == 128 << 10)
        #expect(field(device, 12) == 126)
        #expect(field(device, 20) == 512)
        #expect(field(device, 36) == 1 << 21 && field(device, 40) == 16)
        let alignment: UInt32 = field(device, 44)
        #expect(alignment >= 1 && alignment.nonzeroBitCount == 1)
        #expect(field(device, 48) == 1 << 15 && field(device, 52) == 1 && field(device, 56) == 1)

        let readOnly = try FakeDisk(disk.file, readOnly: true).device
        #expect(readOnly.features == 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9)
        #expect(field(readOnly, 0, UInt64.self) == UInt64(Self.blocks))
        #expect(readOnly.configuration[36...].allSatisfy { $0 == 0 })
    }

    /// A guest that writes the header of an image format gets the same disk at its next start, and no file that the header names
    /// (CVE-2026-27211 of Cloud Hypervisor).
    @Test(arguments: ["QFI\u{fb}", "conectix", "vhdxfile", "KDMV"]) func aHeaderOfAFormatIsData(magic: String) throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size))
        var sector = Array(magic.unicodeScalars.map { UInt8($0.value) })
        sector += wire(UInt32(3).byteSwapped) + wire(UInt64(64).byteSwapped) + wire(UInt32(11).byteSwapped)
        sector += [UInt8](repeating: 0, count: 64 - sector.count) + Array("/etc/passwd".utf8)
        sector += [UInt8](repeating: 0, count: 512 - sector.count)
        #expect(try disk.ask(1, 0, sending: sector) == .done())
        let again = try FakeDisk(disk.file)
        #expect(field(again.device, 0, UInt64.self) == UInt64(Self.blocks))
        #expect(try again.ask(0, 0, room: 1024) == .done(1024))
        #expect(again.memory.read(1024, at: FakeDisk.payload) == sector + FakeDisk.pattern(512, from: 512))
    }

    @Test(arguments: [false, true]) func readsAndWrites(usesRing: Bool) throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size), usesRing: usesRing)
        #expect(try disk.ask(0, 3, room: 1024) == .done(1024))
        #expect(disk.memory.read(1024, at: FakeDisk.payload) == FakeDisk.pattern(1024, from: 3 * 512))
        let data = [UInt8](repeating: 0x5a, count: 1536)
        #expect(try disk.ask(1, 10, sending: data) == .done())
        var expected = FakeDisk.pattern(Self.size)
        expected.replaceSubrange(5120..<6656, with: data)
        #expect(disk.content() == expected)
        // The whole disk, its last sector, and nothing at its end.
        #expect(try disk.ask(0, 0, room: Self.size) == .done(UInt32(Self.size)))
        #expect(disk.memory.read(Self.size, at: FakeDisk.payload) == expected)
        #expect(try disk.ask(0, 63, room: 512) == .done(512))
        #expect(try disk.ask(0, 64) == .done())
        #expect(try disk.ask(1, 64) == .done())
        #expect(disk.content() == expected)
    }

    /// Header, data and status lie in whatever buffers the driver likes (virtio 1.2, 2.7.4).
    @Test(arguments: [false, true]) func anyFraming(usesRing: Bool) throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size), usesRing: usesRing)
        let (header, payload, status) = (FakeDisk.header, FakeDisk.payload, FakeDisk.status)
        disk.writeHeader(0, 7)
        // The header in three, the data in uneven parts, the last with the status at its end.
        disk.memory.store(FakeDisk.untouched, at: payload + 0x2000 + 223)
        disk.ring.add([
            (header, 1, false), (header + 1, 10, false), (header + 11, 5, false), (payload, 1, true),
            (payload + 0x1000, 800, true), (payload + 0x2000, 224, true),
        ])
        #expect(try disk.serve().map(\.count) == [1025])
        let read =
            disk.memory.read(1, at: payload) + disk.memory.read(800, at: payload + 0x1000)
            + disk.memory.read(223, at: payload + 0x2000)
        #expect(read == FakeDisk.pattern(1024, from: 7 * 512))
        #expect(disk.memory.read(1, at: payload + 0x2000 + 223) == [0])

        // The header and the first data in one.
        disk.writeHeader(1, 20, at: payload)
        disk.memory.write([UInt8](repeating: 9, count: 1024), at: payload + 16)
        #expect(
            try disk.ask([
                (payload, 17, false), (payload + 17, 511, false), (payload + 528, 512, false), (status, 1, true),
            ])
                == .done())
        #expect(Array(disk.content()[20 * 512..<22 * 512]) == [UInt8](repeating: 9, count: 1024))

        // As many buffers as a chain may have: 1021 of 16 bytes, one of 48, and two more.
        disk.writeHeader(0, 0)
        let table = payload + 0x10000
        disk.ring.setDescriptor(0, header, 16, 1, next: 1, table: table)
        for index: UInt16 in 1...1022 {
            let count: UInt32 = index == 1022 ? 48 : 16
            disk.ring.setDescriptor(index, payload + 64 * UInt64(index), count, 3, next: index + 1, table: table)
        }
        disk.ring.setDescriptor(1023, status, 1, 2, table: table)
        disk.ring.setDescriptor(200, table, 16 * 1024, FakeRing.indirect)
        disk.ring.publish(200)
        #expect(try disk.serve().map(\.count) == [32 * 512 + 1])
        #expect(disk.memory.read(16, at: payload + 64) == FakeDisk.pattern(16))
        #expect(disk.memory.read(48, at: payload + 64 * 1022) == FakeDisk.pattern(48, from: 1021 * 16))
    }

    @Test func flushAndName() throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size))
        #expect(try disk.ask(4) == .done())
        #expect(try disk.ask(8, room: 20) == .done(20))
        #expect(disk.memory.read(20, at: FakeDisk.payload) == Array("a disk of the test's".utf8))
        let short = BlockDevice(file: try BlockFile(disk.file, readOnly: true), readOnly: true, id: "x")
        try short.queues[0].start(
            disk.ring.geometry, memory: disk.memory.guest, features: .all, position: disk.ring.used)
        disk.ring.add([(FakeDisk.header, 16, false), (FakeDisk.payload, 24, true), (FakeDisk.status, 1, true)])
        _ = try short.process(queue: 0, interrupt: {})
        #expect(disk.ring.takeUsed().map(\.count) == [21])
        #expect(disk.memory.read(21, at: FakeDisk.payload) == [UInt8(ascii: "x")] + [UInt8](repeating: 0, count: 20))
    }

    @Test(arguments: ["/var/tmp", "/dev/shm"]) func discard(directory: String) throws {
        let count = 1 << 20
        let disk = try FakeDisk(FakeDisk.scratch(count, in: directory))
        // The file system may need some blocks to say what is free: 64 are left out of account here.
        let before = disk.allocated()
        // Empty ranges are nothing to do.
        #expect(try disk.ask(11, sending: FakeDisk.range(0, 0)) == .done())
        #expect(disk.allocated() == before)
        let ranges = FakeDisk.range(256, 256) + FakeDisk.range(2048, 0) + FakeDisk.range(1024, 512)
        #expect(try disk.ask(11, sending: ranges) == .done())
        #expect(disk.allocated() <= before - (768 - 64) * 512)
        let content = disk.content()
        #expect(content.count == count)
        #expect(Array(content[..<(256 * 512)]) == FakeDisk.pattern(256 * 512))
        #expect(Array(content[(1536 * 512)...]) == FakeDisk.pattern(512 * 512, from: 1536 * 512))
    }

    /// With and without leave to unmap, on a file system that has all ways to do it (as most do), and on one that can't
    /// make zeroes without unmapping (tmpfs).
    @Test(arguments: ["/var/tmp", "/dev/shm"]) func writeZeroes(directory: String) throws {
        let count = 1 << 20
        let disk = try FakeDisk(FakeDisk.scratch(count, in: directory))
        let before = disk.allocated()
        var expected = FakeDisk.pattern(count)
        // Not a multiple of what is written at a time, nor of the file system's blocks.
        #expect(try disk.ask(13, sending: FakeDisk.range(3, 1001)) == .done())
        expected.replaceSubrange(3 * 512..<1004 * 512, with: repeatElement(0, count: 1001 * 512))
        #expect(disk.content() == expected)
        #expect(disk.allocated() >= before)
        #expect(try disk.ask(13, sending: FakeDisk.range(1024, 512, flags: 1)) == .done())
        expected.replaceSubrange(1024 * 512..<1536 * 512, with: repeatElement(0, count: 512 * 512))
        #expect(disk.content() == expected)
        #expect(disk.allocated() <= before - (512 - 64) * 512)
        #expect(try disk.ask(13, sending: FakeDisk.range(2047, 1, flags: 1)) == .done())
        #expect(disk.content().suffix(512).allSatisfy { $0 == 0 })
    }

    @Test func aDriverThatCannotDiscard() throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size), features: 1 << 9)
        #expect(try disk.ask(11, sending: FakeDisk.range(0, 8)) == .unsupported)
        #expect(try disk.ask(13, sending: FakeDisk.range(0, 8)) == .unsupported)
        #expect(disk.content() == FakeDisk.pattern(Self.size))
    }

    /// An image that somebody truncates gives what it has, and an error.
    @Test(arguments: [false, true]) func partsOfRequests(usesRing: Bool) throws {
        let disk = try FakeDisk(FakeDisk.scratch(Self.size), usesRing: usesRing)
        ftruncate(disk.file.raw, 40 * 512 + 100)
        #expect(try disk.ask(0, 38, room: 4 * 512) == .failed(2 * 512 + 100))
        #expect(disk.memory.read(1124, at: FakeDisk.payload) == FakeDisk.pattern(1124, from: 38 * 512))
        #expect(try disk.ask(0, 50, room: 512) == .failed())
        // The disk's size is what it was at the start.
        #expect(try disk.ask(1, 63, sending: FakeDisk.pattern(512, from: 63 * 512)) == .done())
        #expect(disk.content().count == Self.size)
        #expect(try disk.ask(0, 39, room: 4 * 512) == .done(4 * 512))
    }

    @Test func descriptorsThatAreNoDisk() throws {
        func refused(_ error: BlockFileError?, _ file: SharedDescriptor, readOnly: Bool = false) {
            if let error {
                #expect(throws: error) { try BlockFile(file, readOnly: readOnly) }
            } else {
                #expect(throws: BlockFileError.self) { try BlockFile(file, readOnly: readOnly) }
            }
        }
        let (read, _) = try SharedDescriptor.pipe()
        refused(.wrongKind(mode: 0o10600), read)
        refused(nil, SharedDescriptor(try .open("/var/tmp", O_RDONLY)), readOnly: true)
        refused(nil, SharedDescriptor(try .open("/dev/zero", O_RDWR)))
        refused(nil, try FakeDisk.scratch(512, flags: O_APPEND))
        let file = try FakeDisk.scratch(512)
        let path = "/proc/self/fd/\(file.raw)"
        refused(nil, SharedDescriptor(try .open(path, O_RDONLY)))
        refused(nil, SharedDescriptor(try .open(path, O_WRONLY)), readOnly: true)
        refused(nil, SharedDescriptor(try .open(path, martlet_O_PATH)), readOnly: true)
        _ = try BlockFile(SharedDescriptor(try .open(path, O_RDONLY)), readOnly: true)
        let direct = Glibc.open(path, O_RDWR | martlet_O_DIRECT)
        if direct >= 0 { refused(nil, SharedDescriptor(OwnedDescriptor(owning: direct))) }
        withExtendedLifetime(file) {}
    }
}
