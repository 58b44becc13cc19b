/// Feature bits of a block device (virtio 1.2, 5.2.3).
enum BlockFeature {
    static let segmentSize: UInt64 = 1 << 1
    static let segments: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let blockSize: UInt64 = 1 << 6
    static let flush: UInt64 = 1 << 9
    static let multiqueue: UInt64 = 1 << 12
    static let discard: UInt64 = 1 << 13
    static let writeZeroes: UInt64 = 1 << 14
}

/// The type of a request (virtio 1.2, 5.2.6).
enum BlockOperation: UInt32 {
    case read = 0
    case write = 1
    case flush = 4
    case identify = 8
    case discard = 11
    case writeZeroes = 13
}

/// The status of a request: the last byte of its writable part (virtio 1.2, 5.2.6).
enum BlockStatus: UInt8 {
    case done = 0
    case failed = 1
    case unsupported = 2
}

/// The header of a request, little-endian: the start of its readable part (virtio 1.2, 5.2.6).
struct BlockHeader {
    static let size = 16
    var type: UInt32 = 0
    var reserved: UInt32 = 0
    var sector: UInt64 = 0
}

/// A range to discard or to fill with zeroes, little-endian (virtio 1.2, 5.2.6).
struct BlockRange {
    static let size = 16
    static let unmap: UInt32 = 1
    var sector: UInt64 = 0
    var sectors: UInt32 = 0
    var flags: UInt32 = 0
}

/// Limits of one request. They are large enough for a guest and small enough to stop a queue soon.
enum BlockLimits {
    /// Two less than the size of the smallest queue that a transport offers.
    static let segments: UInt32 = 126
    /// Bytes of a segment.
    static let segmentSize: UInt32 = 128 << 10
    /// Bytes read or written.
    static let data = Int(segments * segmentSize)
    /// Sectors of a range: 1 GiB.
    static let discardSectors: UInt32 = 1 << 21
    static let discardRanges = 16
    /// Sectors of a range: 16 MiB, since zeroes may have to be written.
    static let zeroSectors: UInt32 = 1 << 15
    static let zeroRanges = 1
}
