import LinuxSystem
import Synchronization

/// A process's streams under way: one vsock connection and one relay each.
final class ProcessStreams: Sendable {
    private let input: StreamRelay?
    private let outputs: [StreamRelay]
    /// Whether output is waited for without an end.
    private let isPatient: Bool
    /// Keeps a fifo from ending before the engine says so.
    private let hold: Mutex<SharedDescriptor?>

    init(input: StreamRelay?, hold: SharedDescriptor?, outputs: [StreamRelay], isPatient: Bool) {
        self.input = input
        self.hold = Mutex(hold)
        self.outputs = outputs
        self.isPatient = isPatient
    }

    /// How long an exit waits for output that nobody takes, unless its reader is waited for: short at the exit, longer when
    /// everything is taken away.
    static let exitPatience = Duration.milliseconds(500)
    static let removalPatience = Duration.seconds(3)

    /// Suspends until all output is with the engine, or `limit` has passed.
    func finish(within limit: Duration) async {
        input?.cancel()
        let outputs = outputs
        await waiting(atMost: isPatient ? .seconds(Int32.max) : limit) {
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
        let held = hold.withLock { hold in
            defer { hold = nil }
            return hold
        }
        if held == nil { input?.cancel() }
    }
}
