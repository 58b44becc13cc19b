import Glibc
import GuestSystem
import LinuxSystem

/// What is done to the files of a share: read and written in a row and at random, made and removed.
struct FileWorkload {
    /// Of the large file, bytes.
    private var size = 256 << 20
    /// Reads, and writes, of one block at random.
    private var operations = 16_384
    /// Small files, and the bytes in each.
    private var files = 10_000
    private var fileSize = 1024

    private static let share = "/share"
    /// Where the work is done: the entry that the host has put into the share.
    private static let directory = "/share/work/files"
    private static let large = directory + "/large"
    private static let small = directory + "/small"
    private static let block = 4096
    private static let chunk = 1 << 20

    /// - Parameter words: `size=`, `operations=`, `files=` and `file-size=`, a number each; what is not given is left
    ///   as it is here.
    init(_ words: some Sequence<String>) throws {
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, let number = Int(parts[1]), number >= 0 else {
                throw Refusal("not understood: \(word)")
            }
            switch parts[0] {
            case "size": size = number
            case "operations": operations = number
            case "files": files = number
            case "file-size": fileSize = number
            default: throw Refusal("not understood: \(word)")
            }
        }
        guard size >= Self.chunk, size % Self.chunk == 0, operations <= size / Self.block else {
            throw Refusal("size=\(size) is no multiple of 1 MiB, or has less than \(operations) blocks")
        }
    }

    func perform() throws {
        mkdir(Self.share, 0o755)
        try GuestMounts.mountAt("martlet", Self.share, "virtiofs", 0)
        let bytes = (0..<Self.chunk).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        try Mark.phase("sequential-write", amount: size) { try writeLarge(bytes) }
        try dropCaches()
        try Mark.phase("sequential-read", amount: size) { try readLarge() }
        let blocks = shuffled(count: operations, below: size / Self.block)
        try dropCaches()
        try Mark.phase("random-read", amount: operations) { try readBlocks(blocks) }
        try dropCaches()
        try Mark.phase("random-write", amount: operations) { try writeBlocks(blocks, bytes) }
        // What was written is then on the host's disk, and does not slow its file system down later.
        try dropCaches()
        try check("mkdir", Self.small, mkdir(Self.small, 0o755))
        try Mark.phase("create", amount: files) { try createFiles(bytes) }
        try Mark.phase("remove", amount: files) { try removeFiles() }
    }

    // MARK: One large file

    private func writeLarge(_ bytes: [UInt8]) throws {
        let file = try OwnedDescriptor.open(Self.large, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
        for _ in 0..<size / Self.chunk { try put(bytes, Self.chunk, to: file.raw, Self.large) }
    }

    private func readLarge() throws {
        let file = try OwnedDescriptor.open(Self.large, O_RDONLY)
        var buffer = [UInt8](repeating: 0, count: Self.chunk)
        var left = size
        while left > 0 {
            let count = try check("read", Self.large, read(file.raw, &buffer, buffer.count))
            if count == 0 { throw Refusal("\(Self.large) ends \(left) bytes early") }
            left -= count
        }
    }

    private func readBlocks(_ blocks: [Int]) throws {
        let file = try OwnedDescriptor.open(Self.large, O_RDONLY)
        var buffer = [UInt8](repeating: 0, count: Self.block)
        for block in blocks {
            let count = try check("pread", Self.large, pread(file.raw, &buffer, Self.block, off_t(block * Self.block)))
            if count != Self.block { throw Refusal("read \(count) bytes of block \(block)") }
        }
    }

    private func writeBlocks(_ blocks: [Int], _ bytes: [UInt8]) throws {
        let file = try OwnedDescriptor.open(Self.large, O_WRONLY)
        for block in blocks {
            let count = try check("pwrite", Self.large, pwrite(file.raw, bytes, Self.block, off_t(block * Self.block)))
            if count != Self.block { throw Refusal("wrote \(count) bytes of block \(block)") }
        }
    }

    private func put(_ bytes: [UInt8], _ count: Int, to file: Int32, _ path: String) throws {
        let done = try check("write", path, write(file, bytes, count))
        if done != count { throw Refusal("wrote \(done) bytes of \(count) to \(path)") }
    }

    // MARK: Many small files

    private func createFiles(_ bytes: [UInt8]) throws {
        for number in 0..<files {
            let path = "\(Self.small)/file-\(number)"
            let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
            if fileSize > 0 { try put(bytes, min(fileSize, bytes.count), to: file.raw, path) }
        }
    }

    /// As `rm -rf` does it: all that the directory lists, each of these, then the directory.
    private func removeFiles() throws {
        guard let listing = opendir(Self.small) else { throw SystemError.last("opendir", Self.small) }
        defer { closedir(listing) }
        var names: [String] = []
        while let entry = readdir(listing) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        for name in names { try check("unlink", name, unlinkat(dirfd(listing), name, 0)) }
        try check("rmdir", Self.small, rmdir(Self.small))
    }

    // MARK: What the phases need

    /// Takes what the guest has cached of the share, so that the next phase asks the host.
    private func dropCaches() throws {
        sync()
        try writeText("3", to: "/proc/sys/vm/drop_caches")
    }

    /// So many different numbers in an order that is the same in each run.
    private func shuffled(count: Int, below limit: Int) -> [Int] {
        var numbers = Array(0..<limit)
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        for place in 0..<count {
            // xorshift64
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            numbers.swapAt(place, place + Int(state % UInt64(limit - place)))
        }
        return Array(numbers[..<count])
    }
}
