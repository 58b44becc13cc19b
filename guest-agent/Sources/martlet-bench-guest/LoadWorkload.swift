import Glibc
import LinuxSystem

/// What `martlet bench isolation` has a container do: system calls, computing, memory, files, and TCP over the loopback interface. It
/// is an ordinary program here, the container's first process, and powers nothing off.
///
/// A phase that can't be done is reported as missed, and the others go on.
struct LoadWorkload {
    /// The directories whose files are used, by the name in the phases: `root=/work bind=/bind`.
    private var directories: [(name: String, path: String)] = []
    /// How long a phase that repeats one operation takes, milliseconds.
    private var milliseconds = 150

    private static let files = 500
    private static let dataBytes = 64 << 20
    private static let chunk = 1 << 20
    private static let steps = 1_000_000

    /// - Parameter words: `time=MILLISECONDS`, and `NAME=DIRECTORY` for each directory.
    init(_ words: some Sequence<String>) throws {
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw Refusal("not understood: \(word)") }
            if parts[0] == "time" {
                guard let number = Int(parts[1]), (1...60_000).contains(number) else {
                    throw Refusal("\(word): not 1 to 60000 ms")
                }
                milliseconds = number
            } else {
                directories.append((parts[0], parts[1]))
            }
        }
    }

    func perform() {
        repeated("getpid", atMost: 1 << 26) { count in for _ in 0..<count { _ = getpid() } }
        attempt("read-zero") {
            let zero = try Self.open("/dev/zero", O_RDONLY)
            var byte: UInt8 = 0
            repeated("read-zero", atMost: 1 << 26) { count in for _ in 0..<count { _ = read(zero.raw, &byte, 1) } }
        }
        attempt("futex") {
            let pair = try HandOver()
            defer { pair.end() }
            repeated("futex", atMost: 1 << 22) { count in for _ in 0..<count { pair.handOver() } }
        }
        attempt("spawn") {
            try Self.spawn()
            try repeated("spawn", atMost: 1 << 14) { count in for _ in 0..<count { try Self.spawn() } }
        }
        var sink: UInt64 = 1
        repeated("integer", atMost: 1 << 14) { count in for _ in 0..<count { sink = Self.integerPass(sink) } }
        var number = 1.0
        repeated("float", atMost: 1 << 14) { count in for _ in 0..<count { number = Self.floatPass(number) } }
        // So that the compiler can't leave the passes out.
        if sink == 0, number == 0 { Mark.done() }
        attempt("memory") { try copyMemory() }
        for (name, directory) in directories {
            attempt("files-\(name)") { try createFiles("files-\(name)", in: directory) }
            attempt("data-\(name)") { try writeAndRead("data-\(name)", in: directory) }
        }
        attempt("tcp-request") {
            let peer = try LoopbackPeer(echoes: true)
            try peer.exchange()
            try repeated("tcp-request", atMost: 1 << 20) { count in for _ in 0..<count { try peer.exchange() } }
        }
        attempt("tcp-stream") {
            let peer = try LoopbackPeer(echoes: false)
            let piece = [UInt8](repeating: 7, count: LoopbackPeer.piece)
            try repeated("tcp-stream", atMost: 1 << 20, amount: LoopbackPeer.piece) { count in
                try peer.send(piece, times: count)
            }
        }
    }

    // MARK: Phases

    private func attempt(_ name: String, _ body: () throws -> Void) {
        do { try body() } catch { Mark.missed(name, "\(error)") }
    }

    /// One phase that does an operation again and again, until it has taken as long as is asked for by this side's clock. Only the
    /// host's clock is used for the figure.
    ///
    /// - Parameters:
    ///   - most: how often at once.
    ///   - amount: what one operation counts for.
    private func repeated(
        _ name: String, atMost most: Int, amount: Int = 1, _ body: (_ count: Int) throws -> Void
    ) rethrows {
        try body(1)
        try Mark.phase(name) {
            let begin = monotonicNanoseconds()
            var done = 0
            var count = 1
            while true {
                try body(count)
                done += count
                let taken = monotonicNanoseconds() &- begin
                if taken >= UInt64(milliseconds) * 1_000_000 || done >= 1 << 30 { return done * amount }
                // A batch takes an eighth of the time at most, so that the end is not missed by far.
                if taken < UInt64(milliseconds) * 125_000 { count = min(most, count * 2) }
            }
        }
    }

    /// As most programs do it. Not all kernels that serve containers have openat2(2), which `OwnedDescriptor.open` uses.
    private static func open(_ path: String, _ flags: Int32) throws -> OwnedDescriptor {
        OwnedDescriptor(owning: try check("open", path, Glibc.open(path, flags | O_CLOEXEC, 0o644)))
    }

    /// A process that is cloned, executes a program that ends at once, and is waited for.
    private static func spawn() throws {
        var pid: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
        defer { for argument in arguments { free(argument) } }
        let error = posix_spawn(&pid, "/bin/true", nil, nil, &arguments, nil)
        if error != 0 { throw Refusal("posix_spawn /bin/true: \(String(cString: strerror(error)))") }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        if status != 0 { throw Refusal("/bin/true ended with status \(status)") }
    }

    /// A million dependent steps of shifts, exclusive ors and a multiplication (xorshift64*).
    private static func integerPass(_ seed: UInt64) -> UInt64 {
        var state = seed | 1
        for _ in 0..<steps {
            state ^= state >> 12
            state ^= state << 25
            state ^= state >> 27
            state = state &* 0x2545_f491_4f6c_dd1d
        }
        return state
    }

    /// A million dependent steps of a multiplication, an addition and a square root.
    private static func floatPass(_ seed: Double) -> Double {
        var value = seed
        for _ in 0..<steps { value = (value * 1.25 + 0.5).squareRoot() }
        return value
    }

    private func copyMemory() throws {
        let size = 32 << 20
        let source = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        let target = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        defer {
            source.deallocate()
            target.deallocate()
        }
        // All pages are there before the measurement.
        memset(source, 1, size)
        memset(target, 2, size)
        repeated("memory", atMost: 1 << 12, amount: size) { count in
            for _ in 0..<count { memcpy(target, source, size) }
        }
        if target.load(as: UInt8.self) != 1 { throw Refusal("the copy is not what was copied") }
    }

    private func createFiles(_ name: String, in directory: String) throws {
        let own = "\(directory)/bench-files"
        try check("mkdir", own, mkdir(own, 0o755))
        defer { rmdir(own) }
        let paths = (0..<Self.files).map { "\(own)/\($0)" }
        defer { for path in paths { unlink(path) } }
        try Mark.phase(name, amount: Self.files) {
            var facts = stat()
            for path in paths { _ = try Self.open(path, O_WRONLY | O_CREAT | O_EXCL) }
            for path in paths { try check("stat", path, stat(path, &facts)) }
            for path in paths { try check("unlink", path, unlink(path)) }
        }
    }

    private func writeAndRead(_ name: String, in directory: String) throws {
        let path = "\(directory)/bench-data"
        var bytes = (0..<Self.chunk).map { UInt8(truncatingIfNeeded: $0) }
        defer { unlink(path) }
        try Mark.phase(name, amount: 2 * Self.dataBytes) {
            let file = try Self.open(path, O_RDWR | O_CREAT | O_EXCL)
            for offset in stride(from: 0, to: Self.dataBytes, by: Self.chunk) {
                let count = try check("pwrite", path, pwrite(file.raw, bytes, Self.chunk, off_t(offset)))
                if count != Self.chunk { throw Refusal("wrote \(count) bytes to \(path)") }
            }
            for offset in stride(from: 0, to: Self.dataBytes, by: Self.chunk) {
                let count = try check("pread", path, pread(file.raw, &bytes, Self.chunk, off_t(offset)))
                if count != Self.chunk { throw Refusal("read \(count) bytes of \(path)") }
            }
        }
    }
}

/// Two threads that wake each other in turns by semaphores, which are futexes.
private final class HandOver: @unchecked Sendable {
    private let there = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let back = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    // Written before `there` is posted for the last time, read after.
    private var isOver = false

    init() throws {
        sem_init(there, 0, 0)
        sem_init(back, 0, 0)
        try startThread("hand over") { [self] in
            while true {
                while sem_wait(there) != 0 {}
                if isOver { break }
                sem_post(back)
            }
            sem_post(back)
        }
    }

    /// To the other thread and back.
    func handOver() {
        sem_post(there)
        while sem_wait(back) != 0 {}
    }

    func end() {
        isOver = true
        handOver()
    }
}
