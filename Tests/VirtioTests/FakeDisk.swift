import CLinux
import Glibc
import LinuxSystem

@testable import Virtio

/// A disk with a driver that asks for whatever a test wants.
final class FakeDisk {
    static let header = FakeMemory.base + 0x10000
    static let status = header + 0x100
    static let payload = header + 0x1000
    /// What the driver leaves where the status goes.
    static let untouched: UInt8 = 0xee

    let file: SharedDescriptor
    let memory: FakeMemory
    let device: BlockDevice
    private(set) var ring: FakeRing

    /// - Parameters:
    ///   - features: what the driver takes of the device's own; nil: all.
    ///   - usesRing: requests go through a ring where the host has any, and past the page cache where the file can do it.
    init(_ file: SharedDescriptor, readOnly: Bool = false, features: UInt64? = nil, usesRing: Bool = true) throws {
        self.file = file
        memory = try FakeMemory()
        device = BlockDevice(
            file: try BlockFile(Self.reopen(file), readOnly: readOnly, direct: usesRing && !readOnly),
            readOnly: readOnly, id: "a disk of the test's",
            rings: [usesRing ? try? IORing(capacity: RingPool.capacity) : nil])
        ring = FakeRing(memory, at: FakeMemory.base, size: 256)
        try restart(features: features ?? device.features)
    }

    /// Begins anew with an empty ring.
    func restart(features: UInt64) throws {
        ring = FakeRing(memory, at: FakeMemory.base, size: 256)
        try device.queues[0].start(
            ring.geometry, memory: memory.guest, features: [.all, RingFeatures(rawValue: features)], position: 0)
    }

    /// Serves what is in the ring; answers what came back.
    func serve() throws -> [(head: UInt32, count: UInt32)] {
        // What a broken ring leaves in progress too.
        defer { device.finish(queue: 0) }
        repeat {
            while try device.process(queue: 0, interrupt: {}) {}
            device.finish(queue: 0)
        } while device.isPending(queue: 0)
        return ring.takeUsed()
    }

    func writeHeader(_ type: UInt32, _ sector: UInt64, at address: UInt64 = header) {
        memory.store(type, at: address)
        memory.store(0 as UInt32, at: address + 4)
        memory.store(sector, at: address + 8)
    }

    /// Makes one request as Linux does: header, data, status. Answers the status and the used length.
    func ask(_ type: UInt32, _ sector: UInt64 = 0, sending data: [UInt8] = [], room: Int = 0) throws -> Answer {
        writeHeader(type, sector)
        memory.write(data, at: Self.payload)
        var buffers: [(UInt64, UInt32, Bool)] = [(Self.header, 16, false)]
        if !data.isEmpty { buffers.append((Self.payload, UInt32(data.count), false)) }
        if room > 0 { buffers.append((Self.payload, UInt32(room), true)) }
        return try ask(buffers + [(Self.status, 1, true)])
    }

    /// Makes a request of any buffers, with the status at `FakeDisk.status`.
    func ask(_ buffers: [(UInt64, UInt32, Bool)]) throws -> Answer {
        memory.store(Self.untouched, at: Self.status)
        ring.add(buffers)
        let used = try serve()
        return Answer(
            status: memory.load(UInt8.self, at: Self.status), used: used.count == 1 ? used[0].count : .max)
    }

    struct Answer: Equatable {
        var status: UInt8
        var used: UInt32
        static func done(_ data: UInt32 = 0) -> Answer { Answer(status: 0, used: data + 1) }
        static func failed(_ data: UInt32 = 0) -> Answer { Answer(status: 1, used: data + 1) }
        static let unsupported = Answer(status: 2, used: 1)
        static let undone = Answer(status: untouched, used: 0)
    }

    static func range(_ sector: UInt64, _ sectors: UInt32, flags: UInt32 = 0) -> [UInt8] {
        wire(sector) + wire(sectors) + wire(flags)
    }

    // MARK: The file

    /// The file, open a second time: what a disk does to its descriptor, the test's does not have.
    static func reopen(_ file: SharedDescriptor) throws -> SharedDescriptor {
        let access = martlet_fcntl_int(file.raw, F_GETFL, 0) & O_ACCMODE
        return SharedDescriptor(try .open("/proc/self/fd/\(file.raw)", access))
    }

    /// A file with a name in no directory, full of `pattern`.
    static func scratch(_ count: Int, in directory: String = "/var/tmp", flags: Int32 = 0) throws -> SharedDescriptor {
        let file = try OwnedDescriptor.open(directory, O_RDWR | martlet_O_TMPFILE | flags, mode: 0o600)
        let bytes = pattern(count)
        try check("write", directory, Glibc.write(file.raw, bytes, bytes.count))
        return SharedDescriptor(file)
    }

    /// Bytes of which no two sectors are alike, nor zero.
    static func pattern(_ count: Int, from start: Int = 0) -> [UInt8] {
        (start..<start + count).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 / 512 &* 7)) | 1 }
    }

    /// The file's bytes, all of them.
    func content() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(lseek(file.raw, 0, SEEK_END)))
        let count = pread(file.raw, &bytes, bytes.count, 0)
        return Array(bytes.prefix(max(0, count)))
    }

    /// Bytes that the file takes on its file system.
    func allocated() -> Int {
        fsync(file.raw)
        var status = stat()
        return fstat(file.raw, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }
}
