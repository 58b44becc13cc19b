import Glibc
import LinuxSystem
import Synchronization

/// Takes what a process or a guest prints, keeps the last of it, and passes each line on.
///
/// Bounded whatever is sent: so much is read in a second, and so many lines are passed on; at most `maximumLines` lines of `maximumLineBytes` bytes are kept. Lines are `printable`.
public final class Console: Sendable {
    public static let maximumLines = 200
    public static let maximumLineBytes = 1024

    private struct Kept {
        var lines: [String] = []
        /// How many lines came before these.
        var dropped = 0
    }

    private let kept = Mutex(Kept())
    private let finished: Promise<Void>

    /// Reads `source` on a thread of its own until its end.
    ///
    /// - Parameters:
    ///   - pace: of the lines that are passed on. Others are kept all the same, and the next one is preceded by a line that says
    ///     how many there were.
    ///   - onLine: gets each line.
    public init(
        _ name: String, source: SharedDescriptor, pace: Pace = Pace(burst: 1000, perSecond: 100),
        onLine: @Sendable @escaping (String) -> Void
    ) throws {
        finished = try Promise()
        try startThread(name) { [self] in
            var pace = pace
            // 4 MiB a second.
            var reads = Pace(burst: 1024, perSecond: 1024)
            var partial: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(source.raw, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { break }
                for byte in buffer.prefix(count) {
                    if byte == UInt8(ascii: "\n") {
                        keep(&partial, &pace, onLine)
                    } else if partial.count < Console.maximumLineBytes {
                        partial.append(byte)
                    }
                }
                let wait = reads.take()
                if wait > .zero { usleep(useconds_t(wait / .microseconds(1))) }
            }
            if !partial.isEmpty { keep(&partial, &pace, onLine) }
            if pace.refused > 0 { onLine(Console.dropped(pace.refused)) }
            finished.settle(())
        }
    }

    private func keep(_ partial: inout [UInt8], _ pace: inout Pace, _ onLine: (String) -> Void) {
        // A terminal's end of a line.
        while partial.last == UInt8(ascii: "\r") { partial.removeLast() }
        let line = printable(String(decoding: partial, as: UTF8.self), limit: Console.maximumLineBytes)
        partial.removeAll(keepingCapacity: true)
        kept.withLock {
            $0.lines.append(line)
            guard $0.lines.count > Console.maximumLines else { return }
            $0.lines.removeFirst()
            $0.dropped += 1
        }
        guard let refused = pace.admit() else { return }
        if refused > 0 { onLine(Console.dropped(refused)) }
        onLine(line)
    }

    private static func dropped(_ count: Int) -> String { "\(count) lines dropped" }

    /// The last lines, oldest first.
    public func tail(_ count: Int) -> [String] { kept.withLock { Array($0.lines.suffix(count)) } }

    /// The lines from the `first` of all on, which count from 0, as far as they are kept; and the number of the first of these.
    public func lines(from first: Int) -> (first: Int, lines: [String]) {
        kept.withLock {
            let start = min(max(first, $0.dropped), $0.dropped + $0.lines.count)
            return (start, Array($0.lines[(start - $0.dropped)...]))
        }
    }

    /// Waits until the source has ended, so that `tail` has everything.
    public func waitForEnd(timeout: Duration) { _ = finished.wait(timeout: timeout) }
}
