import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// A disk of several files.
@Suite struct JoinedDiskTests {
    /// A file of `count` bytes, each of which is `byte`.
    private func file(_ byte: UInt8, _ count: Int) throws -> SharedDescriptor {
        let file = try FakeDisk.scratch(count)
        let bytes = [UInt8](repeating: byte, count: count)
        #expect(pwrite(file.raw, bytes, count, 0) == count)
        return file
    }

    /// What the disk has from `offset` on, read into two buffers, the first of 700 bytes.
    private func read(_ disk: BlockFile, _ offset: Int, _ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: count)
        let done = bytes.withUnsafeMutableBytes { buffer -> Int in
            let split = min(700, count)
            let vectors = [
                iovec(iov_base: buffer.baseAddress, iov_len: split),
                iovec(iov_base: buffer.baseAddress.map { $0 + split }, iov_len: count - split),
            ]
            return vectors.withUnsafeBufferPointer { disk.read($0, count: count, at: offset, BlockScratch()) }
        }
        return Array(bytes.prefix(done))
    }

    @Test func partsFollowEachOtherAndTheRestIsZero() throws {
        let parts: [(byte: UInt8, count: Int)] = [(1, 4096), (2, 5000), (3, 100)]
        let disk = try BlockFile(
            BlockSource(parts.map { (try file($0.byte, $0.count), UInt64($0.count)) }), readOnly: true)
        #expect(disk.sectors == (4096 + 8192 + 4096) / 512)
        var expected: [UInt8] = []
        for part in parts {
            expected += [UInt8](repeating: part.byte, count: part.count)
            expected += [UInt8](repeating: 0, count: (4096 - part.count % 4096) % 4096)
        }
        #expect(read(disk, 0, expected.count) == expected)
        // Across borders, and within the gaps.
        for (offset, count) in [
            (3584, 1024), (4096, 512), (9_000, 400), (9_090, 4_000), (12_288, 512), (12_800, 3_584),
        ] {
            #expect(read(disk, offset, count) == Array(expected[offset..<offset + count]), "\(offset)")
        }
    }

    /// What was planned counts: a file that has grown since does not move the others, and one that is shorter is refused.
    @Test func thePlansSizesCount() throws {
        let grown = try BlockFile(BlockSource([(try file(1, 9000), 4096), (try file(2, 512), 512)]), readOnly: true)
        #expect(read(grown, 4096, 512) == [UInt8](repeating: 2, count: 512))
        #expect(throws: BlockFileError.tooShort(bytes: 512, planned: 513)) {
            try BlockFile(BlockSource([(try file(1, 512), 513), (try file(2, 512), 512)]), readOnly: true)
        }
    }

    @Test func onlyAReadOnlyDiskHasSeveralFiles() throws {
        let two = BlockSource([(try file(1, 512), 512), (try file(2, 512), 512)])
        #expect(throws: BlockFileError.wrongCount(2)) { try BlockFile(two, readOnly: false) }
        #expect(throws: BlockFileError.wrongCount(0)) { try BlockFile(BlockSource([]), readOnly: true) }
    }

    /// A hundred and more.
    @Test func eachPartIsFound() throws {
        let parts = BlockParts((0..<250).map { (Int32($0), UInt64($0 % 3 * 4096 + 1)) })
        var start = 0
        for number in 0..<250 {
            let bytes = number % 3 * 4096 + 1
            let (part, next) = parts[start]
            #expect(part.file == Int32(number) && part.start == start && part.end == start + bytes)
            start += (bytes + 4095) / 4096 * 4096
            #expect(next == (number == 249 ? Int.max : start))
            #expect(parts[start - 1].part.file == Int32(number))
        }
        #expect(parts.size == UInt64(start))
    }
}
