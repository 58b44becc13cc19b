import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// A loop device of the machine's, over a file of the test's.
private final class LoopDevice {
    static let obstacle: String? = {
        if geteuid() != 0 { return "needs root" }
        if access("/usr/sbin/losetup", X_OK) != 0 { return "needs losetup" }
        do {
            _ = try LoopDevice(sectors: 8)
            return nil
        } catch {
            return "no loop device to be had: \(error)"
        }
    }()

    static let isPossible: Bool = {
        if let obstacle { print("disks over block devices are not tested: \(obstacle)") }
        return obstacle == nil
    }()

    /// The file below.
    let backing: SharedDescriptor
    private(set) var path = ""

    init(over file: SharedDescriptor? = nil, sectors: Int, blockSize: Int = 512) throws {
        let backing = try file ?? FakeDisk.scratch(512 * sectors)
        self.backing = backing
        let (read, write) = try SharedDescriptor.pipe()
        let arguments = ["--find", "--show", "--sector-size", "\(blockSize)", "/proc/self/fd/3"]
        let process = try ChildProcess(
            "losetup",
            .init(executable: "/usr/sbin/losetup", arguments: arguments, descriptors: [-1, write.raw, 2, backing.raw]))
        guard process.waitForEnd() == .exited(0) else {
            throw SystemError("losetup", "", errno: .init(rawValue: ENODEV))
        }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = Glibc.read(read.raw, &bytes, bytes.count)
        path = String(decoding: bytes.prefix(max(0, count)).prefix { $0 > 32 }, as: UTF8.self)
    }

    deinit {
        let process = try? ChildProcess(
            "losetup", .init(executable: "/usr/sbin/losetup", arguments: ["--detach", path], descriptors: [-1, 2, 2]))
        _ = process?.waitForEnd()
    }

    func open(_ flags: Int32 = O_RDWR) throws -> SharedDescriptor { SharedDescriptor(try .open(path, flags)) }
}

/// The block device over a block device.
@Suite(.serialized, .enabled(if: LoopDevice.isPossible, "needs root, losetup and loop devices"))
struct BlockNodeTests {
    @Test func sizes() throws {
        let loop = try LoopDevice(sectors: 64)
        let file = try BlockFile(loop.open(), readOnly: false)
        #expect(file.sectors == 64 && file.blockSize == 512)
        #expect(throws: BlockFileError.wrongFlags(0o100000)) { try BlockFile(loop.open(O_RDONLY), readOnly: false) }
        let large = try LoopDevice(sectors: 64, blockSize: 4096)
        let other = try BlockFile(large.open(O_RDONLY), readOnly: true)
        #expect(other.sectors == 64 && other.blockSize == 4096 && other.discardAlignment >= 8)
    }

    /// All requests, over devices with blocks of 512 and of 4096 bytes: the unit is 512 for both.
    @Test(arguments: [512, 4096]) func requests(blockSize: Int) throws {
        let sectors = 2048
        let loop = try LoopDevice(sectors: sectors, blockSize: blockSize)
        let disk = try FakeDisk(loop.open())
        var expected = FakeDisk.pattern(512 * sectors)
        #expect(try disk.ask(0, 3, room: 1024) == .done(1024))
        #expect(disk.memory.read(1024, at: FakeDisk.payload) == FakeDisk.pattern(1024, from: 3 * 512))
        let data = [UInt8](repeating: 0x77, count: 1536)
        #expect(try disk.ask(1, 9, sending: data) == .done())
        expected.replaceSubrange(9 * 512..<12 * 512, with: data)
        // Zeroes, in whole blocks and not.
        for (sector, count, flags): (UInt64, UInt32, UInt32) in [(16, 8, 0), (33, 3, 0), (64, 64, 1), (203, 7, 1)] {
            #expect(try disk.ask(13, sending: FakeDisk.range(sector, count, flags: flags)) == .done())
            let start = Int(sector) * 512
            expected.replaceSubrange(start..<start + Int(count) * 512, with: repeatElement(0, count: Int(count) * 512))
        }
        #expect(try disk.ask(4) == .done())
        #expect(disk.content() == expected)
        var backing = [UInt8](repeating: 0, count: expected.count)
        #expect(pread(loop.backing.raw, &backing, backing.count, 0) == expected.count && backing == expected)
        // What is discarded goes back to the file below; a range that the device can't take is no error.
        fsync(loop.backing.raw)
        var (before, after) = (stat(), stat())
        fstat(loop.backing.raw, &before)
        #expect(try disk.ask(11, sending: FakeDisk.range(1024, 512)) == .done())
        #expect(try disk.ask(11, sending: FakeDisk.range(1700, 1)) == .done())
        fsync(loop.backing.raw)
        fstat(loop.backing.raw, &after)
        // The file system may need some blocks to say so.
        #expect(after.st_blocks <= before.st_blocks - 512 + 64)
        #expect(Array(disk.content()[..<(1024 * 512)]) == Array(expected[..<(1024 * 512)]))
    }

    @Test func readOnly() throws {
        let loop = try LoopDevice(sectors: 64)
        let disk = try FakeDisk(loop.open(), readOnly: true, features: .max & ~RingFeatures.all.rawValue)
        #expect(try disk.ask(1, 0, sending: [UInt8](repeating: 0, count: 512)) == .failed())
        #expect(try disk.ask(11, sending: FakeDisk.range(0, 8)) == .failed())
        #expect(try disk.ask(13, sending: FakeDisk.range(0, 8, flags: 1)) == .failed())
        #expect(disk.content() == FakeDisk.pattern(64 * 512))
    }

    /// The storage fails only when data in the page cache is flushed: a driver that flushes gets the error then, one that
    /// can't flush at the write, which must not be done before it is kept. A write past the page cache fails by itself.
    @Test(arguments: [false, true]) func aWriteIsKeptOrFails(usesRing: Bool) throws {
        let data = [UInt8](repeating: 1, count: 4096)
        for canFlush in [true, false] {
            // A memory file that is sealed takes nothing more.
            let file = SharedDescriptor(
                OwnedDescriptor(owning: martlet_memfd_create("disk", UInt32(MFD_CLOEXEC | MFD_ALLOW_SEALING))))
            ftruncate(file.raw, 64 * 512)
            let loop = try LoopDevice(over: file, sectors: 64)
            let disk = try FakeDisk(loop.open(), features: (canFlush ? 1 << 9 : 0) | 1 << 14, usesRing: usesRing)
            #expect(try disk.ask(1, 0, sending: data) == .done())
            #expect(try disk.ask(4) == .done())
            try check("seal", "", martlet_fcntl_int(file.raw, F_ADD_SEALS, Int(F_SEAL_WRITE)))
            #expect(try disk.ask(1, 8, sending: data) == (canFlush && !usesRing ? .done() : .failed()))
            if canFlush, !usesRing { #expect(try disk.ask(4) == .failed()) }
        }
    }
}
