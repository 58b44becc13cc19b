import Glibc
import LinuxSystem
import Synchronization

/// How a program ended, and what it wrote.
struct Outcome {
    var end: ProcessEnd
    var output: [UInt8]
    var errors: [UInt8]

    var code: Int32 { end.status }
    var text: String { String(decoding: output, as: UTF8.self) }
    var lines: [String] { text.split(separator: "\n").map(String.init) }
    var errorText: String { String(decoding: errors, as: UTF8.self) }
    var errorLines: [String] { errorText.split(separator: "\n").map(String.init) }
}

/// Gathers what arrives at a descriptor, on a thread of its own.
final class Collector: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    private let finished: Promise<Bool>

    init(_ descriptor: SharedDescriptor) throws {
        finished = try Promise()
        try startThread("collect") { [self] in
            var chunk = [UInt8](repeating: 0, count: 64 << 10)
            while true {
                // A fifo that has had no writer yet is read from when it has one: read(2) takes it for ended.
                var item = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
                _ = poll(&item, 1, -1)
                let count = read(descriptor.raw, &chunk, chunk.count)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { break }  // a terminal whose other side is closed answers EIO
                bytes.withLock { $0 += chunk[..<count] }
            }
            finished.settle(true)
        }
    }

    var current: [UInt8] { bytes.withLock { $0 } }
    var text: String { String(decoding: current, as: UTF8.self) }

    /// Everything, once the other side is closed.
    func whole(within limit: Duration) throws -> [UInt8] {
        guard finished.wait(timeout: limit) != nil else {
            throw LabError("the output is still open: \(text.suffix(500))")
        }
        return current
    }

    /// Waits until `text` has arrived.
    func wait(for text: String, within limit: Duration = .seconds(60)) throws {
        let end = ContinuousClock.now + limit * Lab.patience
        let wanted = Array(text.utf8)
        var seen = 0
        while true {
            let isOver = finished.current != nil || ContinuousClock.now > end
            // Only what is new: converting megabytes each time would slow the program under test down.
            let (fresh, count) = bytes.withLock { (Array($0[max(0, seen - wanted.count)...]), $0.count) }
            if fresh.count >= wanted.count && fresh.firstRange(of: wanted) != nil { return }
            seen = count
            if isOver { throw LabError("\"\(text)\" did not come; what came: \(self.text.suffix(500))") }
            usleep(5000)
        }
    }
}

/// A program under way, its streams in the test's hands.
final class Command: Sendable {
    /// What a stream is tied to.
    enum Stream {
        case null
        /// stdin: `Command.input` is the other end. stdout and stderr: gathered.
        case pipe
        /// The test's own.
        case descriptor(SharedDescriptor)
    }

    let child: ChildProcess
    /// The writing end of stdin.
    let input: Writer?
    let output: Collector?
    let errors: Collector?

    init(
        _ program: String, _ arguments: [String], input: Stream = .null, output: Stream = .pipe, errors: Stream = .pipe,
        environment: [String] = Lab.environment
    ) throws {
        guard let path = program.contains("/") ? program : Lab.program(program) else {
            throw LabError("no \(program) in PATH")
        }
        var ends: [SharedDescriptor] = []
        func number(_ descriptor: SharedDescriptor) -> Int32 {
            ends.append(descriptor)
            return descriptor.raw
        }
        var writer: Writer?
        var collectors: [Collector?] = []
        var numbers: [Int32] = []
        switch input {
        case .null: numbers.append(-1)
        case .descriptor(let own): numbers.append(number(own))
        case .pipe:
            let pipe = try SharedDescriptor.pipe()
            numbers.append(number(pipe.read))
            writer = Writer(pipe.write)
        }
        for stream in [output, errors] {
            switch stream {
            case .null:
                numbers.append(-1)
                collectors.append(nil)
            case .descriptor(let own):
                numbers.append(number(own))
                collectors.append(nil)
            case .pipe:
                let pipe = try SharedDescriptor.pipe()
                numbers.append(number(pipe.write))
                collectors.append(try Collector(pipe.read))
            }
        }
        child = try ChildProcess(
            program,
            .init(
                executable: path, arguments: arguments, environment: environment, descriptors: numbers,
                diesWithParent: true))
        withExtendedLifetime(ends) {}
        self.input = writer
        self.output = collectors[0]
        self.errors = collectors[1]
    }

    /// Waits for its end and its whole output; kills it and throws past `limit`.
    func finish(within limit: Duration = .seconds(60)) throws -> Outcome {
        let limit = limit * Lab.patience
        guard let end = child.waitForEnd(timeout: limit) else {
            child.signal(SIGKILL)
            throw LabError(
                "\(child.name) still runs after \(limit); it wrote \"\((output?.text ?? "").suffix(500))\", "
                    + "errors \"\((errors?.text ?? "").suffix(2000))\"")
        }
        return Outcome(
            end: end, output: try output?.whole(within: .seconds(10)) ?? [],
            errors: try errors?.whole(within: .seconds(10)) ?? [])
    }

    /// Waits for its end, which must be a good one; answers what it wrote.
    @discardableResult
    func finishWell() throws -> String {
        let outcome = try finish()
        guard outcome.code == 0 else { throw LabError("\(child.name): \(outcome.end): \(outcome.errorText)") }
        return outcome.text
    }

    /// Runs a program of the host that must succeed; answers what it wrote.
    @discardableResult
    static func run(_ program: String, _ arguments: [String], within limit: Duration = .seconds(60)) throws -> String {
        let outcome = try Command(program, arguments).finish(within: limit)
        guard outcome.code == 0 else {
            throw LabError(
                "\(program) \(arguments.joined(separator: " ")): \(outcome.end): \(outcome.errorText.suffix(1000))")
        }
        return outcome.text
    }

    /// A script of the host's shell that must succeed.
    @discardableResult
    static func shell(_ script: String, within limit: Duration = .seconds(60)) throws -> String {
        try run("/bin/bash", ["-euo", "pipefail", "-c", script], within: limit)
    }
}

/// A pipe's writing end that can be closed while others still refer to it.
final class Writer: Sendable {
    private let descriptor: Mutex<SharedDescriptor?>

    init(_ descriptor: SharedDescriptor) {
        // A reader that has gone is an error of write(2), and no signal that ends the tests.
        signal(SIGPIPE, SIG_IGN)
        self.descriptor = Mutex(descriptor)
    }

    /// Writes all of it; false when nobody reads any more.
    @discardableResult
    func write(_ text: String) -> Bool {
        guard let descriptor = descriptor.withLock({ $0 }) else { return false }
        var left = Array(text.utf8)[...]
        while !left.isEmpty {
            let count = left.withUnsafeBytes { Glibc.write(descriptor.raw, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return false }
            left = left.dropFirst(count)
        }
        return true
    }

    func close() { descriptor.withLock { $0 = nil } }
}

/// A pipe between programs under test.
final class HostPipe {
    private(set) var read: SharedDescriptor
    private(set) var write: SharedDescriptor

    init() throws { (read, write) = try SharedDescriptor.pipe() }

    /// Leaves both ends to whoever else has them: as long as this process keeps one nobody sees the other's end.
    func close() throws {
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
        (read, write) = (null, null)
    }
}
