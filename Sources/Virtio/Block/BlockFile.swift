import CLinux
import Glibc
import LinuxSystem

/// The raw file or block device of a disk, or, of a disk that is only read, several one after the other.
///
/// Their bytes are the disk's bytes. No image format is recognized, so a guest can't write a header that makes its disk refer to
/// another file. The size is read once. Any thread may use it, each with a `BlockScratch` of its own.
final class BlockFile: @unchecked Sendable {
    /// Bytes of a sector, the unit of all requests (virtio 1.2, 5.2.4).
    static let sectorSize = 512
    private static let zeroCount = 64 << 10

    /// Whole sectors of the file.
    let sectors: UInt64
    /// The block size of the guest's disk, bytes: a block device's logical block size, else 512.
    let blockSize: UInt32
    /// The alignment at which the host can discard, sectors.
    let discardAlignment: UInt32
    private let source: BlockSource
    /// Of a disk that is one file.
    private let file: SharedDescriptor
    private let isDevice: Bool
    /// Of a disk that is several; nil: it is one.
    private let joined: BlockParts?
    /// Reads and writes go past the host's page cache. Their data must be aligned as `alignment` says.
    let isDirect: Bool
    private let alignment: Alignment
    /// Never written after the start.
    private let zeros = UnsafeMutableRawPointer.allocate(byteCount: zeroCount, alignment: 4096)

    /// - Parameter direct: reads and writes go past the host's page cache (O_DIRECT), where the file can do that for any
    ///   whole sectors.
    init(_ source: BlockSource, readOnly: Bool, direct: Bool = false) throws(BlockFileError) {
        guard let first = source.parts.first, source.parts.count == 1 || readOnly else {
            throw .wrongCount(source.parts.count)
        }
        self.source = source
        file = first.file
        zeros.initializeMemory(as: UInt8.self, repeating: 0, count: Self.zeroCount)
        var facts: [Facts] = []
        for part in source.parts { facts.append(try Facts(part.file.raw, readOnly: readOnly)) }
        for (part, fact) in zip(source.parts, facts) where part.bytes > fact.size {
            throw .tooShort(bytes: fact.size, planned: part.bytes)
        }
        isDevice = facts[0].isDevice
        blockSize = facts.map(\.blockSize).max() ?? UInt32(Self.sectorSize)
        discardAlignment = max(blockSize, facts[0].preferredSize) / UInt32(Self.sectorSize)
        alignment = Alignment(first.file.raw)
        isDirect = direct && facts.count == 1 && alignment.enableDirect(first.file.raw)
        if facts.count > 1 {
            let joined = BlockParts(
                zip(source.parts, facts).map { ($0.file.raw, $0.bytes > 0 ? $0.bytes : $1.size) })
            self.joined = joined
            sectors = joined.size / UInt64(Self.sectorSize)
        } else {
            joined = nil
            sectors = (first.bytes > 0 ? first.bytes : facts[0].size) / UInt64(Self.sectorSize)
        }
    }

    convenience init(_ file: SharedDescriptor, readOnly: Bool, direct: Bool = false) throws(BlockFileError) {
        try self.init(BlockSource(file), readOnly: readOnly, direct: direct)
    }

    deinit { zeros.deallocate() }

    /// What the data of direct I/O must be aligned to, bytes; 0: the file can't do it.
    private struct Alignment {
        private(set) var memory: UInt32 = 0
        private(set) var offset: UInt32 = 0

        init(_ file: Int32) { _ = martlet_direct_alignment(file, &memory, &offset) }

        /// - Returns: whether reads and writes of the file are direct now. Each whole sector must be possible.
        func enableDirect(_ file: Int32) -> Bool {
            guard memory > 0, offset > 0, offset <= UInt32(sectorSize) else { return false }
            let flags = martlet_fcntl_int(file, F_GETFL, 0)
            return flags >= 0 && martlet_fcntl_int(file, F_SETFL, Int(flags | martlet_O_DIRECT)) == 0
        }
    }

    /// What the kernel says of a file or block device.
    private struct Facts {
        let isDevice: Bool
        /// Bytes.
        let size: UInt64
        let blockSize: UInt32
        let preferredSize: UInt32

        init(_ file: Int32, readOnly: Bool) throws(BlockFileError) {
            var status = stat()
            try require("fstat", fstat(file, &status))
            let kind = status.st_mode & S_IFMT
            guard kind == S_IFREG || kind == S_IFBLK else { throw .wrongKind(mode: status.st_mode) }
            let flags = martlet_fcntl_int(file, F_GETFL, 0)
            try require("fcntl F_GETFL", flags)
            // O_APPEND: writes would go to the end of the file, whatever their offset.
            // O_DIRECT: whether the file can do it is found out here.
            guard flags & (O_APPEND | martlet_O_DIRECT | martlet_O_PATH) == 0 else { throw .wrongFlags(flags) }
            let access = flags & O_ACCMODE
            guard access == O_RDWR || access == O_RDONLY && readOnly else { throw .wrongFlags(flags) }
            var size = UInt64(clamping: status.st_size)
            var block = Int32(sectorSize)
            isDevice = kind == S_IFBLK
            if isDevice {
                try require("BLKGETSIZE64", martlet_ioctl_pointer(file, martlet_BLKGETSIZE64, &size))
                try require("BLKSSZGET", martlet_ioctl_pointer(file, martlet_BLKSSZGET, &block))
            }
            self.size = size
            blockSize = UInt32(block)
            preferredSize = UInt32(clamping: status.st_blksize)
        }
    }

    private static func require(_ operation: String, _ result: Int32) throws(BlockFileError) {
        if result == -1 { throw .system(.last(operation, "disk")) }
    }

    /// Whether the disk has the `count` sectors from `sector` on.
    func contains(_ sector: UInt64, count: UInt64) -> Bool { sector <= sectors && count <= sectors - sector }

    /// The file and the offset in it of `count` bytes of the disk; nil when they are not all in one file.
    func place(_ offset: Int, count: Int) -> (file: Int32, offset: Int)? {
        guard let joined else { return (file.raw, offset) }
        let part = joined[offset].part
        return offset + count <= part.end ? (part.file, offset - part.start) : nil
    }

    /// Whether reading into the vectors, or writing from them, needs no buffer between: direct I/O wants them aligned.
    func takes(_ vectors: UnsafeBufferPointer<iovec>) -> Bool {
        if !isDirect { return true }
        let (address, count) = (UInt(alignment.memory) - 1, UInt(Self.sectorSize) - 1)
        return vectors.allSatisfy { UInt(bitPattern: $0.iov_base) & address == 0 && UInt($0.iov_len) & count == 0 }
    }

    /// Reads `count` bytes at `offset` into the start of `buffers`.
    ///
    /// - Returns: the number of bytes read before an error or the end of the file.
    func read(_ buffers: UnsafeBufferPointer<iovec>, count: Int, at offset: Int, _ scratch: BlockScratch) -> Int {
        if let joined { return read(buffers, count: count, at: offset, of: joined, scratch) }
        return transfer(buffers, skip: 0, count: count, scratch) { vectors, done in
            takes(vectors)
                ? preadv(file.raw, vectors.baseAddress, Int32(vectors.count), offset + done)
                : readBounced(vectors, at: offset + done, scratch)
        }
    }

    private func read(
        _ buffers: UnsafeBufferPointer<iovec>, count: Int, at offset: Int, of joined: BlockParts,
        _ scratch: BlockScratch
    ) -> Int {
        var done = 0
        while done < count {
            let position = offset + done
            let (part, next) = joined[position]
            let isGap = position >= part.end
            let step = min(count - done, (isGap ? next : part.end) - position)
            if isGap {
                clear(buffers, skip: done, count: step, scratch)
                done += step
                continue
            }
            let moved = transfer(buffers, skip: done, count: step, scratch) {
                preadv(part.file, $0.baseAddress, Int32($0.count), position - part.start + $1)
            }
            done += moved
            if moved < step { break }
        }
        return done
    }

    private func clear(_ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int, _ scratch: BlockScratch) {
        let vectors = Vectors.slice(buffers, skip: skip, count: count, to: scratch.parts)
        for vector in UnsafeBufferPointer(start: scratch.parts, count: vectors) {
            memset(vector.iov_base, 0, vector.iov_len)
        }
    }

    /// Writes `count` bytes of `buffers`, after the first `skip` bytes, at `offset`.
    ///
    /// - Returns: false when not all bytes could be written.
    func write(
        _ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int, at offset: Int, _ scratch: BlockScratch
    ) -> Bool {
        transfer(buffers, skip: skip, count: count, scratch) { vectors, done in
            takes(vectors)
                ? pwritev(file.raw, vectors.baseAddress, Int32(vectors.count), offset + done)
                : writeBounced(vectors, at: offset + done, scratch)
        } == count
    }

    /// Calls `move` with the vectors of what is left and the bytes done so far, until all are done or `move` makes no progress.
    @inline(__always)
    private func transfer(
        _ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int, _ scratch: BlockScratch,
        _ move: (UnsafeBufferPointer<iovec>, Int) -> Int
    ) -> Int {
        var done = 0
        while done < count {
            let vectors = Vectors.slice(buffers, skip: skip + done, count: count - done, to: scratch.parts)
            let moved = move(UnsafeBufferPointer(start: scratch.parts, count: vectors), done)
            if moved < 0, errno == EINTR { continue }
            if moved <= 0 { break }
            done += moved
        }
        return done
    }

    /// Reads as much as the buffer between takes. Returns what pread(2) returns.
    private func readBounced(_ vectors: UnsafeBufferPointer<iovec>, at offset: Int, _ scratch: BlockScratch) -> Int {
        let count = min(BlockScratch.bounceSize, vectors.reduce(0) { $0 + $1.iov_len })
        let moved = pread(file.raw, scratch.bounce, count, offset)
        return moved > 0 ? Vectors.copyIn(scratch.bounce, count: moved, to: vectors) : moved
    }

    /// Writes as much as the buffer between takes. Returns what pwrite(2) returns.
    private func writeBounced(_ vectors: UnsafeBufferPointer<iovec>, at offset: Int, _ scratch: BlockScratch) -> Int {
        let count = Vectors.copyOut(vectors, to: scratch.bounce, count: BlockScratch.bounceSize)
        return pwrite(file.raw, scratch.bounce, count, offset)
    }

    /// Whether Linux completes a direct write on a thread of its own, as file systems need it.
    var completesWritesElsewhere: Bool { isDirect && !isDevice }

    /// The descriptor to flush.
    var descriptor: Int32 { file.raw }

    /// Flushes written data to stable storage.
    ///
    /// - Returns: false on failure.
    func flush() -> Bool { retryingEINTR { fdatasync(file.raw) } }

    /// Discards `count` bytes at `offset`, if the host supports it. A discard is a hint, so an unsupported one succeeds.
    ///
    /// - Returns: false only when the storage failed (EIO).
    func discard(_ offset: Int, count: Int) -> Bool {
        let done = retryingEINTR {
            guard isDevice else {
                return martlet_fallocate(file.raw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count)
            }
            var range = (UInt64(offset), UInt64(count))
            return martlet_ioctl_pointer(file.raw, martlet_BLKDISCARD, &range)
        }
        return done || errno != EIO
    }

    /// Makes `count` bytes at `offset` read as zeroes, and deallocates them only if `mayUnmap`.
    ///
    /// fallocate(2) works for block devices too (as BLKZEROOUT), with or without unmapping. If the file system or device does
    /// not support it, zeroes are written.
    func zero(_ offset: Int, count: Int, mayUnmap: Bool) -> Bool {
        if mayUnmap, allocate(FALLOC_FL_PUNCH_HOLE, offset, count) { return true }
        if allocate(FALLOC_FL_ZERO_RANGE, offset, count) { return true }
        var done = 0
        while done < count {
            let moved = pwrite(file.raw, zeros, min(Self.zeroCount, count - done), offset + done)
            if moved < 0, errno == EINTR { continue }
            if moved <= 0 { return false }
            done += moved
        }
        return true
    }

    private func allocate(_ mode: Int32, _ offset: Int, _ count: Int) -> Bool {
        retryingEINTR { martlet_fallocate(file.raw, mode | FALLOC_FL_KEEP_SIZE, offset, count) }
    }

    private func retryingEINTR(_ call: () -> Int32) -> Bool {
        while true {
            if call() == 0 { return true }
            if errno != EINTR { return false }
        }
    }
}

/// Why a descriptor can't be a disk.
public enum BlockFileError: Error, Equatable, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// Neither a regular file nor a block device. `st_mode`.
    case wrongKind(mode: UInt32)
    /// Open with flags that a disk can't have: not for reading and writing (a read-only disk needs no writing),
    /// O_APPEND, O_DIRECT or O_PATH.
    case wrongFlags(Int32)
    /// A disk of no file, or one of several that is not read-only.
    case wrongCount(Int)
    /// A file of a disk of several has become shorter.
    case tooShort(bytes: UInt64, planned: UInt64)

    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .wrongKind(let mode): "disk: neither a regular file nor a block device (mode 0\(String(mode, radix: 8)))"
        case .wrongFlags(let flags): "disk: open with flags 0\(String(flags, radix: 8)), which a disk must not have"
        case .wrongCount(let count): "disk: \(count) files, of which a disk that can be written has exactly one"
        case .tooShort(let bytes, let planned): "disk: a file has \(bytes) bytes, fewer than the \(planned) planned"
        }
    }
}
