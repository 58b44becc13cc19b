import CLinux
import Glibc
import LinuxSystem

/// The raw image file or block device behind a disk.
///
/// Its bytes are the disk's bytes: no format is looked for, so nothing that a guest writes can turn its disk into
/// another file's. The size is taken once. Belongs to one thread.
final class BlockFile {
    /// Bytes of a sector, the unit of all requests (virtio 1.2, 5.2.4).
    static let sectorSize = 512
    private static let zeroCount = 64 << 10

    /// Whole sectors of the file.
    let sectors: UInt64
    /// The block size of the disk that the guest sees: a device's logical block size. Bytes.
    let blockSize: UInt32
    /// What the host can discard at least. Sectors.
    let discardAlignment: UInt32
    private let file: SharedDescriptor
    private let isDevice: Bool
    private let parts = UnsafeMutablePointer<iovec>.allocate(capacity: Virtqueue.maximumChain)
    private let zeros = UnsafeMutableRawPointer.allocate(byteCount: zeroCount, alignment: 4096)

    init(_ file: SharedDescriptor, readOnly: Bool) throws(BlockFileError) {
        self.file = file
        zeros.initializeMemory(as: UInt8.self, repeating: 0, count: Self.zeroCount)
        let status = try Self.checkedStatus(file.raw, readOnly: readOnly)
        isDevice = status.st_mode & S_IFMT == S_IFBLK
        var size = UInt64(clamping: status.st_size)
        var block: Int32 = Int32(Self.sectorSize)
        if isDevice {
            try Self.ask("BLKGETSIZE64", martlet_ioctl_pointer(file.raw, martlet_BLKGETSIZE64, &size))
            try Self.ask("BLKSSZGET", martlet_ioctl_pointer(file.raw, martlet_BLKSSZGET, &block))
        }
        sectors = size / UInt64(Self.sectorSize)
        blockSize = UInt32(block)
        discardAlignment = max(blockSize, UInt32(clamping: status.st_blksize)) / UInt32(Self.sectorSize)
    }

    deinit {
        parts.deallocate()
        zeros.deallocate()
    }

    private static func checkedStatus(_ file: Int32, readOnly: Bool) throws(BlockFileError) -> stat {
        var status = stat()
        try ask("fstat", fstat(file, &status))
        let kind = status.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFBLK else { throw .wrongKind(mode: status.st_mode) }
        let flags = martlet_fcntl_int(file, F_GETFL, 0)
        try ask("fcntl F_GETFL", flags)
        // O_APPEND: writes would go to the end of the file, wherever they are meant for.
        // O_DIRECT: the guest's buffers are aligned as the guest likes.
        guard flags & (O_APPEND | martlet_O_DIRECT | martlet_O_PATH) == 0 else { throw .wrongFlags(flags) }
        let access = flags & O_ACCMODE
        guard access == O_RDWR || access == O_RDONLY && readOnly else { throw .wrongFlags(flags) }
        return status
    }

    private static func ask(_ operation: String, _ result: Int32) throws(BlockFileError) {
        if result == -1 { throw .system(.last(operation, "disk")) }
    }

    /// Whether so many sectors from `sector` on are on the disk.
    func contains(_ sector: UInt64, count: UInt64) -> Bool { sector <= sectors && count <= sectors - sector }

    /// Reads `count` bytes at `offset` into the start of `buffers`; answers how many came before an error or the end.
    func read(_ buffers: UnsafeBufferPointer<iovec>, count: Int, at offset: Int) -> Int {
        transfer(buffers, skip: 0, count: count) { preadv(file.raw, parts, $0, offset + $1) }
    }

    /// Writes `count` bytes of `buffers`, after `skip` bytes, at `offset`. False when not all could be written.
    func write(_ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int, at offset: Int) -> Bool {
        transfer(buffers, skip: skip, count: count) { pwritev(file.raw, parts, $0, offset + $1) } == count
    }

    /// Calls `move` with the number of vectors in `parts` and the bytes done, until all is done or nothing moves.
    @inline(__always)
    private func transfer(
        _ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int, _ move: (Int32, Int) -> Int
    ) -> Int {
        var done = 0
        while done < count {
            let vectors = Vectors.slice(buffers, skip: skip + done, count: count - done, to: parts)
            let moved = move(Int32(vectors), done)
            if moved < 0, errno == EINTR { continue }
            if moved <= 0 { break }
            done += moved
        }
        return done
    }

    /// Has the storage keep what was written.
    func flush() -> Bool { uninterrupted { fdatasync(file.raw) } }

    /// Gives `count` bytes at `offset` back to the host, if it can take them. False only when the storage failed: a
    /// discard is a hint, and a host that ignores it has done it.
    func discard(_ offset: Int, count: Int) -> Bool {
        let done = uninterrupted {
            guard isDevice else {
                return martlet_fallocate(file.raw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count)
            }
            var range = (UInt64(offset), UInt64(count))
            return martlet_ioctl_pointer(file.raw, martlet_BLKDISCARD, &range)
        }
        return done || errno != EIO
    }

    /// Makes `count` bytes at `offset` read as zeroes, and gives them back to the host only if it may.
    ///
    /// fallocate(2) does so for block devices too, as BLKZEROOUT does, and with or without unmapping. Where the file
    /// system or device can't, zeroes are written.
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
        uninterrupted { martlet_fallocate(file.raw, mode | FALLOC_FL_KEEP_SIZE, offset, count) }
    }

    private func uninterrupted(_ call: () -> Int32) -> Bool {
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

    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .wrongKind(let mode): "disk: neither a regular file nor a block device (mode 0\(String(mode, radix: 8)))"
        case .wrongFlags(let flags): "disk: open with flags 0\(String(flags, radix: 8)), which a disk can't have"
        }
    }
}
