import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// What is done to disks: read and written past the page cache, one disk after the other, with so many requests in progress.
struct DiskWorkload {
    /// The disks' serial numbers.
    private var names: [String] = []
    private var rounds = 1
    /// How long a disk is read or written at a time.
    private var milliseconds = 500
    /// Requests in progress.
    private var depths = [1, 32]

    /// - Parameter words: `disks=` and `depths=`, lists with commas; `rounds=` and `milliseconds=`, numbers. What is not given is
    ///   left as it is here.
    init(_ words: some Sequence<String>) throws {
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { throw Refusal("not understood: \(word)") }
            let list = parts[1].split(separator: ",")
            switch (parts[0], Int(parts[1])) {
            case ("disks", _): names = list.map(String.init)
            case ("depths", _):
                depths = list.compactMap { Int($0) }
                guard depths.count == list.count, depths.allSatisfy({ (1...Self.capacity).contains($0) }) else {
                    throw Refusal("not understood: \(word)")
                }
            case ("rounds", let number?) where number > 0: rounds = number
            case ("milliseconds", let number?) where number > 0: milliseconds = number
            default: throw Refusal("not understood: \(word)")
            }
        }
    }

    private static let capacity = 32
    private static let large = 128 << 10
    private static let small = 4 << 10

    private enum Pattern: String, CaseIterable {
        case sequentialRead = "sequential-read"
        case sequentialWrite = "sequential-write"
        case randomRead = "random-read"
        case randomWrite = "random-write"

        var isSequential: Bool { self == .sequentialRead || self == .sequentialWrite }
        var operation: IORing.Operation { self == .sequentialRead || self == .randomRead ? .read : .write }
        /// Bytes of a request.
        var block: Int { isSequential ? large : small }
    }

    private struct Target {
        var name: String
        var file: SharedDescriptor
        /// Bytes.
        var size: Int
    }

    func perform() throws {
        mkdir("/sys", 0o755)
        try GuestMounts.mountAt("sysfs", "/sys", "sysfs", 0)
        let targets = try names.map { try open($0) }
        let ring = try IORing(capacity: Self.capacity)
        let buffers = UnsafeMutableRawPointer.allocate(byteCount: Self.capacity * Self.large, alignment: 4096)
        defer { buffers.deallocate() }
        memset(buffers, 0x5a, Self.capacity * Self.large)
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        for round in 0..<rounds {
            for depth in depths {
                for (number, pattern) in Pattern.allCases.enumerated() {
                    for place in targets.indices {
                        // Each is the first as often as the others.
                        let target = targets[(place + number + round) % targets.count]
                        try Mark.phase("\(pattern.rawValue)-\(depth)/\(target.name)") {
                            try run(pattern, target, depth, ring, buffers, &state)
                        }
                    }
                }
            }
        }
    }

    /// Opens the disk with a serial number, which may take the kernel a moment to find.
    private func open(_ name: String) throws -> Target {
        for _ in 0..<500 {
            for letter in "abcdefgh" {
                guard let serial = try? readText("/sys/block/vd\(letter)/serial"), serial.hasPrefix(name) else {
                    continue
                }
                let path = "/dev/vd\(letter)"
                let file = SharedDescriptor(try OwnedDescriptor.open(path, O_RDWR | martlet_O_DIRECT))
                let size = Int(try check("lseek", path, lseek(file.raw, 0, SEEK_END)))
                guard size >= Self.large else { throw Refusal("disk \(name) of \(size) bytes") }
                return Target(name: name, file: file, size: size)
            }
            usleep(10_000)
        }
        throw Refusal("there is no disk \(name)")
    }

    /// Reads or writes a disk for the time given.
    ///
    /// - Returns: the bytes of all requests.
    private func run(
        _ pattern: Pattern, _ target: Target, _ depth: Int, _ ring: IORing, _ buffers: UnsafeMutableRawPointer,
        _ state: inout UInt64
    ) throws -> Int {
        let block = pattern.block
        let blocks = target.size / block
        var (next, done, inProgress) = (0, 0, 0)
        var failure: Int32 = 0
        var random = state
        func begin(_ slot: Int) {
            // xorshift64
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            let place = pattern.isSequential ? next % blocks : Int(random % UInt64(blocks))
            next += 1
            ring.prepare(
                pattern.operation, file: target.file.raw, address: buffers + slot * Self.large, count: block,
                offset: place * block, tag: UInt64(slot))
            inProgress += 1
        }
        let end = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        for slot in 0..<depth { begin(slot) }
        while inProgress > 0 {
            try ring.submit(waitFor: 1)
            let goesOn = monotonicNanoseconds() < end
            ring.reap { slot, result in
                inProgress -= 1
                done += block
                if result != Int32(block) { failure = result }
                if goesOn, failure == 0 { begin(Int(slot)) }
            }
        }
        state = random
        if failure != 0 { throw Refusal("disk \(target.name): \(pattern.rawValue) gave \(failure), not \(block)") }
        return done
    }
}
