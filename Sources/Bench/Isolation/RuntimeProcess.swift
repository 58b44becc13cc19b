import Glibc
import LinuxSystem
import Synchronization

/// A command of a runtime. Threads read what it writes and take the times.
final class RuntimeProcess: Sendable {
    private struct Record {
        var firstOutput: UInt64?
        /// What is not a whole line yet.
        var rest: [UInt8] = []
        var errors: [UInt8] = []
        var openStreams = 2
    }

    /// How the command ended, and the time of that, monotonic nanoseconds.
    struct Outcome: Sendable {
        var end: ProcessEnd
        var time: UInt64
    }

    /// Monotonic nanoseconds.
    let begin: UInt64
    private let name: String
    private let child: ChildProcess
    /// Its standard input, where it has one.
    private let input: SharedDescriptor?
    private let record = Mutex(Record())

    /// - Parameters:
    ///   - arguments: after the program's name.
    ///   - hasInput: whether it has a standard input, for `write`; else it has none.
    ///   - line: called on another thread with each line of the output and its time.
    init(
        _ runtime: OCIRuntime, _ arguments: [String], hasInput: Bool = false,
        line: @escaping @Sendable (String, UInt64) -> Void = { _, _ in }
    ) throws {
        let (output, outputInput) = try SharedDescriptor.pipe()
        let (errors, errorInput) = try SharedDescriptor.pipe()
        let (inputOutput, input) = hasInput ? try SharedDescriptor.pipe() : (nil, nil)
        self.input = input
        name = "\(runtime.name) \(arguments.first { !$0.hasPrefix("-") && !$0.hasPrefix("/") } ?? "")"
        begin = monotonicNanoseconds()
        child = try ChildProcess(
            runtime.name,
            .init(
                executable: runtime.program, arguments: arguments, environment: RunPhases.environment(),
                descriptors: [inputOutput?.raw ?? -1, outputInput.raw, errorInput.raw], newSession: true,
                diesWithParent: true))
        withExtendedLifetime((inputOutput, outputInput, errorInput)) {}
        try startThread("output") { [self] in
            Self.read(output) { bytes in
                let now = monotonicNanoseconds()
                let lines = record.withLock { record in
                    if record.firstOutput == nil { record.firstOutput = now }
                    record.rest += bytes
                    var lines: [String] = []
                    while let end = record.rest.firstIndex(of: UInt8(ascii: "\n")) {
                        lines.append(String(decoding: record.rest[..<end], as: UTF8.self))
                        record.rest.removeSubrange(...end)
                    }
                    // Lines without an end are nobody's measurement.
                    if record.rest.count > 1 << 16 { record.rest = [] }
                    return lines
                }
                for text in lines { line(text, now) }
            }
            record.withLock { $0.openStreams -= 1 }
        }
        try startThread("errors") { [self] in
            Self.read(errors) { bytes in
                record.withLock { $0.errors = Array(($0.errors + bytes).suffix(4096)) }
            }
            record.withLock { $0.openStreams -= 1 }
        }
    }

    private static func read(_ stream: SharedDescriptor, _ body: (ArraySlice<UInt8>) -> Void) {
        // The times are taken when this thread gets to run. Of the calling thread alone, in Linux (setpriority(2)).
        setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -15)
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = Glibc.read(stream.raw, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return }
            body(buffer[..<count])
        }
    }

    /// Waits for the first output.
    ///
    /// - Returns: its time, monotonic nanoseconds.
    /// - Throws: `BenchError` with what the command said, where it ends before or prints nothing within `limit`.
    func waitForOutput(_ limit: Duration) throws -> UInt64 {
        let deadline = ContinuousClock.now + limit
        while true {
            try Interruption.check()
            let hasEnded = child.ended != nil && record.withLock { $0.openStreams == 0 }
            if let time = record.withLock({ $0.firstOutput }) { return time }
            if hasEnded { throw failure("ended without output") }
            if ContinuousClock.now > deadline { throw failure("printed nothing in \(limit)") }
            usleep(1000)
        }
    }

    /// Waits for the end.
    ///
    /// - Parameter isCleanup: go on waiting where the user interrupts.
    /// - Throws: `BenchError` where it does not end within `limit`.
    func waitForEnd(_ limit: Duration, isCleanup: Bool = false) throws -> Outcome {
        let deadline = ContinuousClock.now + limit
        while true {
            // Long enough that the check does not disturb, short enough for a user who interrupts.
            if let end = child.waitForEnd(timeout: .milliseconds(200)) {
                let outcome = Outcome(end: end, time: monotonicNanoseconds())
                // What it has written is still in the pipes, unless somebody else has them open.
                for _ in 0..<100 where record.withLock({ $0.openStreams > 0 }) { usleep(1000) }
                return outcome
            }
            if !isCleanup { try Interruption.check() }
            if ContinuousClock.now > deadline { throw failure("did not end in \(limit)") }
        }
    }

    /// Waits for an end with exit code 0.
    ///
    /// - Returns: milliseconds from the start.
    func waitForSuccess(_ limit: Duration) throws -> Double {
        let outcome = try waitForEnd(limit)
        guard outcome.end == .exited(0) else { throw failure("\(outcome.end)") }
        return Double(outcome.time - begin) / 1e6
    }

    /// Writes to its standard input.
    func write(_ bytes: [UInt8]) throws {
        guard let input else { return }
        try check("write", name, Int32(Glibc.write(input.raw, bytes, bytes.count)))
    }

    func signal(_ number: Int32) { child.signal(number) }

    /// An error that says what happened, with the end of what the command has said.
    func failure(_ what: String) -> BenchError {
        let text = String(decoding: record.withLock { $0.errors }, as: UTF8.self)
        let last = text.split(whereSeparator: \.isNewline).suffix(3).joined(separator: "; ")
        return BenchError("\(name) \(what)" + (last.isEmpty ? "" : ": \(printable(last, limit: 400))"))
    }
}

/// Whether the user wants the bench to end. It then ends the containers that run, and says so.
enum Interruption {
    struct Interrupted: Error, CustomStringConvertible { var description: String { "interrupted" } }

    nonisolated(unsafe) private static var wasRequested: sig_atomic_t = 0

    /// From now on, SIGINT, SIGTERM and SIGHUP do not end this process, but have `check` throw.
    static func watch() {
        for number in [SIGINT, SIGTERM, SIGHUP] { _ = signal(number) { _ in Interruption.wasRequested = 1 } }
    }

    static func check() throws { if wasRequested != 0 { throw Interrupted() } }
}
