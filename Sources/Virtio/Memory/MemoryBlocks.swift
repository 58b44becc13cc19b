/// Which blocks of a memory device are plugged: a bitmap.
struct MemoryBlocks: Equatable {
    /// Blocks of the region.
    let count: Int
    /// Of block n, bit n % 8 of byte n / 8. Bits behind the last block are 0.
    private(set) var bitmap: [UInt8]
    /// Blocks that are plugged.
    private(set) var pluggedCount = 0

    /// All blocks are unplugged.
    init(count: Int) {
        self.count = count
        bitmap = [UInt8](repeating: 0, count: (count + 7) / 8)
    }

    /// - Parameter bitmap: not trusted.
    /// - Returns: nil where the bitmap has another length, or a bit behind the last block.
    init?(count: Int, bitmap: [UInt8]) {
        self.init(count: count)
        guard bitmap.count == self.bitmap.count else { return nil }
        if count % 8 != 0, let last = bitmap.last, last >> UInt8(count % 8) != 0 { return nil }
        self.bitmap = bitmap
        pluggedCount = bitmap.reduce(0) { $0 + $1.nonzeroBitCount }
    }

    /// Whether a block is plugged.
    ///
    /// - Parameter block: less than `count`.
    subscript(block: Int) -> Bool { bitmap[block / 8] >> UInt8(block % 8) & 1 != 0 }

    /// How many blocks of a range are plugged.
    func pluggedCount(in range: Range<Int>) -> Int { range.count { self[$0] } }

    /// Plugs or unplugs all blocks of a range.
    mutating func set(_ range: Range<Int>, isPlugged: Bool) {
        for block in range where self[block] != isPlugged {
            bitmap[block / 8] ^= 1 << UInt8(block % 8)
            pluggedCount += isPlugged ? 1 : -1
        }
    }

    /// The plugged blocks: neighbours as one range, in order.
    var pluggedRanges: [Range<Int>] {
        var ranges: [Range<Int>] = []
        var block = 0
        while block < count {
            guard self[block] else {
                block += 1
                continue
            }
            let first = block
            while block < count, self[block] { block += 1 }
            ranges.append(first..<block)
        }
        return ranges
    }
}
