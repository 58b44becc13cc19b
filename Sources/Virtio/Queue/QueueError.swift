/// How a driver broke its ring. The device stops and needs a reset (virtio 1.2, 2.7).
public enum QueueError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The size is not a power of two from 1 to the device's maximum.
    case badSize(UInt32)
    /// A ring address without the alignment that virtio 1.2, 2.7 requires.
    case misaligned(part: RingPart, address: UInt64)
    /// A ring of which one region of guest memory does not hold all.
    case ringOutsideMemory(part: RingPart, address: UInt64)
    /// The available index is ahead of the device by more than the queue's size.
    case availableIndexAhead(by: UInt16, size: UInt16)
    /// An entry of the available ring with an index beyond the descriptor table.
    case headBeyondTable(UInt16)
    /// A descriptor whose `next` is beyond the table, direct or indirect.
    case nextBeyondTable(UInt16)
    /// A chain with more descriptors than the table: it has a loop.
    case loop
    /// A chain with more descriptors than the device accepts.
    case chainTooLong
    /// A chain of 4 GiB or more in one direction (virtio 1.2, 2.7.4).
    case chainTooLarge
    /// A readable descriptor after a writable one (virtio 1.2, 2.7.4.2).
    case readableAfterWritable
    /// An address range outside guest memory, or across its end.
    case outsideMemory(address: UInt64, count: UInt32)
    /// An indirect descriptor where the feature was not negotiated.
    case indirectNotNegotiated
    /// An indirect descriptor within an indirect table.
    case nestedIndirect
    /// An indirect descriptor with a `next`.
    case indirectWithNext
    /// An indirect table that is empty, too long, or not a multiple of 16 bytes.
    case indirectLength(UInt32)
    /// A receive buffer that is not write-only, or too small for the header (virtio 1.2, 5.1.6.3.1).
    case receiveBuffer
    /// The queue is not running.
    case stopped

    public enum RingPart: String, Sendable {
        case descriptors = "descriptor table"
        case available = "available ring"
        case used = "used ring"
    }

    public var description: String {
        switch self {
        case .badSize(let size): "queue size \(size)"
        case .misaligned(let part, let address): "\(part.rawValue) misaligned at \(hexadecimal(address))"
        case .ringOutsideMemory(let part, let address): "\(part.rawValue) outside memory at \(hexadecimal(address))"
        case .availableIndexAhead(let by, let size): "available index ahead by \(by) in a queue of \(size)"
        case .headBeyondTable(let index): "available entry names descriptor \(index) beyond the table"
        case .nextBeyondTable(let index): "next descriptor \(index) beyond the table"
        case .loop: "descriptor loop"
        case .chainTooLong: "chain of too many descriptors"
        case .chainTooLarge: "chain of 4 GiB or more"
        case .readableAfterWritable: "readable descriptor after a writable one"
        case .outsideMemory(let address, let count): "\(count) bytes at \(hexadecimal(address)) outside memory"
        case .indirectNotNegotiated: "indirect descriptor without the feature"
        case .nestedIndirect: "nested indirect descriptor"
        case .indirectWithNext: "indirect descriptor with a next one"
        case .indirectLength(let count): "indirect table of \(count) bytes"
        case .receiveBuffer: "receive buffer that is readable, or too small"
        case .stopped: "queue not running"
        }
    }
}

private func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
