import LinuxSystem
import Synchronization

/// The relays of a process's streams; each has a vsock connection of its own.
final class ProcessStreams: Sendable {
    private let input: StreamRelay?
    private let outputs: [StreamRelay]
    /// Whether output is waited for without a limit.
    private let waitsForReader: Bool
    /// The write end of the fifo that input is read from: keeps the input from ending before the engine asks for that.
    private let writeEnd: Mutex<SharedDescriptor?>

    /// - Parameters:
    ///   - writeEnd: see `EngineStreams.End`.
    ///   - waitsForReader: see `EngineStreams`.
    init(input: StreamRelay?, writeEnd: SharedDescriptor?, outputs: [StreamRelay], waitsForReader: Bool) {
        self.input = input
        self.writeEnd = Mutex(writeEnd)
        self.outputs = outputs
        self.waitsForReader = waitsForReader
    }

    /// How long the report of an exit waits for output that nobody reads, unless the reader is waited for without a limit.
    static let exitTimeout = Duration.milliseconds(500)
    /// How long a removal does.
    static let removalTimeout = Duration.seconds(3)

    /// Suspends until the engine has all output of a process that has ended, or `limit` has passed.
    func finish(within limit: Duration) async {
        input?.cancel()
        for output in outputs { output.endOfProcess() }
        let outputs = outputs
        await waiting(atMost: waitsForReader ? .seconds(Int32.max) : limit) {
            for output in outputs { await output.finish() }
        }
    }

    /// Stops everything; output not taken yet is dropped.
    func cancel() {
        input?.cancel()
        for output in outputs { output.cancel() }
    }

    /// Ends the process's input: what the engine has written into a fifo is still passed on.
    func closeInput() {
        let closed = writeEnd.withLock { writeEnd in
            defer { writeEnd = nil }
            return writeEnd
        }
        if closed == nil { input?.cancel() }
    }
}
