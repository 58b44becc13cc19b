import Glibc
import LinuxSystem

@testable import Virtio

/// A memory device on an event loop that the test turns by hand, with a driver's queue, on real memory.
final class MemoryScene {
    static let block = MemoryBackend.blockSize
    /// The device's region: eight blocks.
    static let region = FakeMemory.base + 0x70_0000..<FakeMemory.base + 0x70_0000 + 8 * block
    static let request = FakeMemory.base + 0x30000
    static let response = FakeMemory.base + 0x31000

    let memory: FakeMemory
    let loop: EventLoop
    let backend: MemoryBackend
    let queue: FakeQueue
    private(set) var broken: [String] = []

    /// - Parameter usable: blocks of the usable region; nil: all.
    init(requested blocks: UInt64 = 8, usable: UInt64? = nil, starts: Bool = true) throws {
        memory = try FakeMemory(count: 32 << 20)
        loop = try EventLoop()
        var report: (String) -> Void = { _ in }
        backend = MemoryBackend(
            region: Self.region, usableBytes: usable.map { $0 * Self.block }, memory: memory.guest, isPrivate: false,
            loop: loop
        ) { report($0) }
        queue = try FakeQueue(0, memory)
        report = { [unowned self] in broken.append($0) }
        try backend.request(bytes: blocks * Self.block)
        if starts { try start() }
    }

    func start() throws {
        try backend.start(queue: 0, queue.setup)
        try loop.runOnce(timeoutMilliseconds: 0)
    }

    /// The guest-physical address of a block.
    static func address(_ block: Int) -> UInt64 { region.lowerBound + UInt64(block) * Self.block }

    /// The bytes of a request. What the device must not look at is not zero.
    static func bytes(_ type: UInt16, _ address: UInt64 = 0, _ count: UInt16 = 0) -> [UInt8] {
        wire(type) + [1, 2, 3, 4, 5, 6] + wire(address) + wire(count) + [7, 8, 9, 10, 11, 12]
    }

    /// Has the device serve a request.
    ///
    /// - Returns: what it has written; nil where it has not used the chain.
    func send(_ bytes: [UInt8], room: UInt32 = 10) throws -> [UInt8]? {
        memory.write(bytes, at: Self.request)
        memory.write([UInt8](repeating: 0xee, count: 64), at: Self.response)
        queue.ring.add([(Self.request, UInt32(bytes.count), false), (Self.response, room, true)])
        return try serve()
    }

    /// Has the device serve what is in the queue.
    func serve() throws -> [UInt8]? {
        queue.signal()
        try loop.runOnce(timeoutMilliseconds: 0)
        let used = queue.ring.takeUsed()
        return used.first.map { memory.read(Int($0.count), at: Self.response) }
    }

    /// The type of the answer to a request about blocks.
    func ask(_ type: UInt16, _ blocks: Range<Int> = 0..<0) throws -> UInt16? {
        try answer(Self.bytes(type, Self.address(blocks.lowerBound), UInt16(blocks.count)))?.type
    }

    /// The type of the answer to a request, and the state that follows.
    func answer(_ bytes: [UInt8]) throws -> (type: UInt16, state: UInt16)? {
        guard let reply = try send(bytes), reply.count == 10 else { return nil }
        return (UInt16(reply[0]) | UInt16(reply[1]) << 8, UInt16(reply[8]) | UInt16(reply[9]) << 8)
    }

    func plug(_ blocks: Range<Int>) throws -> UInt16? { try ask(0, blocks) }
    func unplug(_ blocks: Range<Int>) throws -> UInt16? { try ask(1, blocks) }
    func unplugAll() throws -> UInt16? { try ask(2) }

    /// Writes all over a block, as a guest that uses it.
    func fill(_ block: Int) { memset(memory.pointer(Self.address(block)), 0xaa, Int(Self.block)) }

    /// The first byte of each of a block's pages.
    func bytes(_ block: Int) -> Set<UInt8> {
        Set(stride(from: 0, to: Self.block, by: 4096).map { memory.load(UInt8.self, at: Self.address(block) + $0) })
    }

    /// The bytes of the region that the memory's file has, without looking at them: that would bring them back.
    var presentBytes: Int {
        let first = Int64(Self.region.lowerBound - FakeMemory.base)
        var count = 0
        try? eachExtent(
            of: memory.file.raw, in: first..<first + Int64(Self.region.upperBound - Self.region.lowerBound), "memory"
        ) { count += Int($0.upperBound - $0.lowerBound) }
        return count
    }

    /// The plugged blocks, as the device tells the host.
    var plugged: [Range<Int>] {
        backend.pluggedRanges.map {
            Int(
                ($0.lowerBound - Self.region.lowerBound) / Self.block)..<Int(
                    ($0.upperBound - Self.region.lowerBound) / Self.block)
        }
    }
}
