import Glibc

/// The last bytes of an output that its reader has not taken yet. When there is no more room, the oldest are forgotten.
struct LastBytes: ~Copyable {
    let capacity: Int
    private let bytes: UnsafeMutableRawPointer
    /// Where the oldest byte is.
    private var start = 0
    private(set) var count = 0
    /// Bytes forgotten between those taken away last and those that are `oldest` now, since `forgetLost`.
    private(set) var lost = 0

    init(capacity: Int) {
        self.capacity = capacity
        bytes = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit { bytes.deallocate() }

    var room: Int { capacity - count }

    /// Adds `total` bytes of `source`. Not one of them is copied that would be forgotten at once.
    mutating func append(_ source: UnsafeBufferPointer<iovec>, count total: Int) {
        let skip = max(0, total - capacity)
        lost += skip
        forget(total - skip - room)
        let end = (start + count) % capacity
        let first = Vectors.copyOut(
            source, skip: skip, to: bytes + end, count: min(total - skip, capacity - end))
        let second = Vectors.copyOut(source, skip: skip + first, to: bytes, count: total - skip - first)
        count += first + second
    }

    private mutating func forget(_ number: Int) {
        guard number > 0 else { return }
        lost += number
        remove(number)
    }

    /// The oldest bytes, as far as they lie in one piece.
    var oldest: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: bytes + start, count: min(count, capacity - start))
    }

    /// Takes the oldest `number` bytes away.
    mutating func remove(_ number: Int) {
        start = (start + number) % capacity
        count -= number
    }

    /// Begins to count anew.
    mutating func forgetLost() { lost = 0 }
}
