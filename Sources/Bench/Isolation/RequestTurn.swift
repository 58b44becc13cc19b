import Glibc
import LinuxSystem
import Synchronization

/// The latency of requests to a container: a byte to its standard input, and back.
struct RequestTurn {
    /// The time between two requests, so that the container sleeps when one comes.
    private static let pause: UInt32 = 3000
    private static let count = 150

    /// The command that runs the container.
    let process: RuntimeProcess
    private let replies: Replies
    private let limit: Duration

    private final class Replies: Sendable {
        /// The times of all lines, monotonic nanoseconds.
        let times = Mutex<[UInt64]>([])
    }

    /// Starts the container, which runs `cat`, and waits until it replies.
    ///
    /// - Parameter limit: how long one reply may take.
    init(_ runtime: OCIRuntime, _ arguments: [String], limit: Duration) throws {
        let replies = Replies()
        process = try RuntimeProcess(runtime, arguments, hasInput: true) { _, time in
            replies.times.withLock { $0.append(time) }
        }
        self.replies = replies
        self.limit = limit
        _ = try request()
    }

    /// - Returns: milliseconds from the write to the reply.
    private func request() throws -> Double {
        let before = replies.times.withLock { $0.count }
        let begin = monotonicNanoseconds()
        try process.write([UInt8(ascii: "\n")])
        let deadline = ContinuousClock.now + limit
        while true {
            if let time = replies.times.withLock({ $0.count > before ? $0[before] : nil }) {
                return Double(time - begin) / 1e6
            }
            try Interruption.check()
            if ContinuousClock.now > deadline { throw process.failure("did not reply in \(limit)") }
            usleep(50)
        }
    }

    /// Many requests, one after the other.
    ///
    /// - Returns: their latencies in milliseconds, in ascending order.
    func latencies() throws -> [Double] {
        try (0..<Self.count).map { _ in
            usleep(Self.pause)
            return try request()
        }.sorted()
    }

    /// - Parameters:
    ///   - sorted: in ascending order; not empty.
    ///   - part: 0.99 for the value that 99 of 100 are not above.
    static func percentile(_ sorted: [Double], _ part: Double) -> Double {
        sorted[min(sorted.count - 1, max(0, Int((Double(sorted.count) * part).rounded(.up)) - 1))]
    }
}
