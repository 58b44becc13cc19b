/// How a driver broke its ring. Such a device stops and needs a reset (virtio 1.2, 2.7).
public enum QueueError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The size is not a power of two from 1 to the device's maximum.
    case badSize(UInt32)
    /// A ring address that is not aligned as virtio 1.2, 2.7 demands.
    case misaligned(part: RingPart, address: UInt64)
    /// A ring that is not wholly in one region of guest memory.
    case ringOutsideMemory(part: RingPart, address: UInt64)
    /// The available index is further ahead than the queue is long.
    case availableIndexAhead(by: UInt16, size: UInt16)
    /// An available ring entry that names a descriptor beyond the table.
    case headBeyondTable(UInt16)
    /// A `next` beyond the table, direct or indirect.
    case nextBeyondTable(UInt16)
    /// More descriptors than the table has: they form a loop.
    case loop
    /// A chain of more descriptors than the device accepts.
    case chainTooLong
    /// A chain of 4 GiB or more in one direction (virtio 1.2, 2.7.4).
    case chainTooLarge
    /// A readable descriptor after a writable one (virtio 1.2, 2.7.4.2).
    case readableAfterWritable
    /// An address range outside guest memory or around its end.
    case outsideMemory(address: UInt64, count: UInt32)
    /// An indirect descriptor where the feature was not negotiated.
    case indirectNotNegotiated
    /// An indirect descriptor within an indirect table.
    case nestedIndirect
    /// An indirect descriptor that also says "next".
    case indirectWithNext
    /// An indirect table that is empty, too long, or no multiple of 16 bytes.
    case indirectLength(UInt32)
    /// A buffer for frames that is not for writing alone, or too small for their header (virtio 1.2, 5.1.6.3.1).
    case receiveBuffer
    /// The queue does not run.
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
