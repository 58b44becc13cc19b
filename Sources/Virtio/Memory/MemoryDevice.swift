import Glibc

/// A virtio memory device (virtio 1.2, 5.15): a region of the guest's memory of which the driver plugs blocks, as much as the device
/// asks for, and unplugs what is too much.
///
/// A reset of the device leaves the blocks as they are (5.15.5.2). Linux's driver unplugs all when it begins and finds some plugged.
/// A block that is unplugged goes back to the host. The guest finds memory there all the same: nothing keeps it from the region's
/// unplugged part, so the usable region is what it can take of the host.
final class MemoryDevice: QueueDevice {
    /// Bytes of a block, and their alignment.
    static let blockSize: UInt64 = 2 << 20

    /// That of the guest's requests.
    let queues = [Virtqueue()]
    /// Guest-physical addresses; bounds are multiples of `blockSize`.
    let region: Range<UInt64>
    private let memory: GuestMemory
    /// Gives whole pages of the guest's memory back to the host; false: it could not be done.
    private let discard: (UnsafeMutableRawPointer, Int) -> Bool
    /// Called when blocks were plugged or unplugged, before the driver is told that it is done.
    var onChange: () -> Void = {}

    private(set) var blocks: MemoryBlocks
    /// Bytes that are to be plugged, whole blocks.
    var requestedBytes: UInt64 = 0
    /// The first part of the region, of which the driver may plug blocks: whole blocks, and all that are plugged are in it (5.15.4).
    var usableBytes: UInt64

    /// - Parameters:
    ///   - region: guest-physical addresses; bounds are multiples of `blockSize`.
    ///   - memory: has the region.
    ///   - discard: gets whole pages.
    init(
        region: Range<UInt64>, memory: GuestMemory, discard: @escaping (UnsafeMutableRawPointer, Int) -> Bool
    ) {
        precondition(
            region.lowerBound % Self.blockSize == 0 && region.upperBound % Self.blockSize == 0,
            "a region of whole blocks")
        self.region = region
        self.memory = memory
        self.discard = discard
        usableBytes = region.upperBound - region.lowerBound
        blocks = MemoryBlocks(count: Int(usableBytes / Self.blockSize))
    }

    /// Bytes of the region.
    var size: UInt64 { UInt64(blocks.count) * Self.blockSize }
    /// Bytes that are plugged.
    var pluggedBytes: UInt64 { UInt64(blocks.pluggedCount) * Self.blockSize }

    /// Goes on with what a device had that was saved.
    ///
    /// - Parameters:
    ///   - requestedBytes: whole blocks.
    ///   - blocks: as many as this device has.
    func restore(requestedBytes: UInt64, usableBytes: UInt64, _ blocks: MemoryBlocks) {
        self.requestedBytes = requestedBytes
        self.usableBytes = usableBytes
        self.blocks = blocks
    }

    /// The guest-physical addresses of blocks.
    func addresses(_ blocks: Range<Int>) -> Range<UInt64> {
        let start = region.lowerBound + UInt64(blocks.lowerBound) * Self.blockSize
        return start..<start + UInt64(blocks.count) * Self.blockSize
    }

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[index]
        // One at a time: to give memory back takes its time.
        return try queue.serve(budget: 1, interrupt: interrupt) { reply(queue) }
    }

    /// Performs the request in the current chain. One without room for the response is not performed.
    ///
    /// - Returns: the number of bytes written.
    private func reply(_ queue: Virtqueue) -> UInt32 {
        typealias Response = MemoryProtocol.Response
        guard queue.writableBytes >= UInt32(Response.size) else { return 0 }
        let response = MemoryProtocol.Request(queue.readable).map(perform) ?? Response(.error)
        return UInt32(Vectors.copyIn(response.bytes, count: Response.size, to: queue.writable))
    }

    private func perform(_ request: MemoryProtocol.Request) -> MemoryProtocol.Response {
        let operation = MemoryProtocol.Operation(rawValue: request.type)
        // The only one that has no blocks.
        if operation == .unplugAll { return .init(unplugAll()) }
        guard let operation, let range = blocks(of: request) else { return .init(.error) }
        switch operation {
        case .plug: return .init(plug(range))
        case .unplug: return .init(unplug(range))
        case .state, .unplugAll: return .init(.acknowledged, state(of: range))
        }
    }

    /// The blocks that a request names; nil where there are none, or they are not all in the usable region.
    private func blocks(of request: MemoryProtocol.Request) -> Range<Int>? {
        guard request.address % Self.blockSize == 0, request.address >= region.lowerBound else { return nil }
        let first = (request.address - region.lowerBound) / Self.blockSize
        let all = usableBytes / Self.blockSize
        guard request.count > 0, first < all, UInt64(request.count) <= all - first else { return nil }
        return Int(first)..<Int(first) + Int(request.count)
    }

    private func plug(_ range: Range<Int>) -> MemoryProtocol.Answer {
        guard blocks.pluggedCount(in: range) == 0 else { return .error }
        guard pluggedBytes + UInt64(range.count) * Self.blockSize <= requestedBytes else { return .refused }
        blocks.set(range, isPlugged: true)
        onChange()
        return .acknowledged
    }

    /// What does not go back now the driver may ask for again.
    private func unplug(_ range: Range<Int>) -> MemoryProtocol.Answer {
        guard blocks.pluggedCount(in: range) == range.count else { return .error }
        guard discard(addresses(range)) else { return .busy }
        blocks.set(range, isPlugged: false)
        onChange()
        return .acknowledged
    }

    /// Gives back the unplugged blocks too: the guest may have used them. The only answers are that it is done, and that it could not
    /// be done now (5.15.6.4).
    private func unplugAll() -> MemoryProtocol.Answer {
        guard discard(region.lowerBound..<region.lowerBound + usableBytes) else { return .busy }
        blocks = MemoryBlocks(count: blocks.count)
        onChange()
        return .acknowledged
    }

    private func state(of range: Range<Int>) -> MemoryProtocol.State {
        switch blocks.pluggedCount(in: range) {
        case 0: .unplugged
        case range.count: .plugged
        default: .mixed
        }
    }

    /// Gives back what is at some guest-physical addresses.
    ///
    /// - Returns: whether all of it went back.
    private func discard(_ addresses: Range<UInt64>) -> Bool {
        var address = addresses.lowerBound
        while address < addresses.upperBound {
            guard let piece = memory.piece(at: address, atMost: addresses.upperBound - address),
                discard(piece.base, Int(piece.count))
            else { return false }
            address += piece.count
        }
        return true
    }
}
