import Glibc

/// Output that its reader has not taken yet, in a buffer of fixed size. When the buffer is full, the oldest bytes are dropped.
struct OutputBacklog: ~Copyable {
    let capacity: Int
    private let bytes: UnsafeMutableRawPointer
    /// The index of the oldest byte.
    private var start = 0
    private(set) var count = 0
    /// The number of bytes dropped since the last `resetLost`. They came before the bytes in `oldest`.
    private(set) var lost = 0

    init(capacity: Int) {
        self.capacity = capacity
        bytes = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { bytes.deallocate() }

    var room: Int { capacity - count }

    /// Adds `total` bytes of `source`. Bytes that would be dropped at once are not copied.
    mutating func append(_ source: UnsafeBufferPointer<iovec>, count total: Int) {
        let skip = max(0, total - capacity)
        lost += skip
        drop(total - skip - room)
        let end = (start + count) % capacity
        let first = Vectors.copyOut(
            source, skip: skip, to: bytes + end, count: min(total - skip, capacity - end))
        let second = Vectors.copyOut(source, skip: skip + first, to: bytes, count: total - skip - first)
        count += first + second
    }

    private mutating func drop(_ number: Int) {
        guard number > 0 else { return }
        lost += number
        remove(number)
    }

    /// The oldest bytes, up to the end of the buffer.
    var oldest: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: bytes + start, count: min(count, capacity - start))
    }

    /// Removes the oldest `number` bytes.
    mutating func remove(_ number: Int) {
        start = (start + number) % capacity
        count -= number
    }

    /// Sets `lost` to 0.
    mutating func resetLost() { lost = 0 }
}
