import Glibc
import LinuxSystem
import Synchronization

/// Takes what a process or a guest prints, keeps the last of it, and passes each line on.
///
/// Bounded whatever is sent: at most `maximumLines` lines of `maximumLineBytes` bytes are kept.
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
    public init(_ name: String, source: SharedDescriptor, onLine: @Sendable @escaping (String) -> Void) throws {
        finished = try Promise()
        try startThread(name) { [self] in
            var partial: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(source.raw, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { break }
                for byte in buffer.prefix(count) {
                    if byte == UInt8(ascii: "\n") {
                        keep(&partial, onLine)
                    } else if byte >= 0x20 || byte == UInt8(ascii: "\t"), partial.count < Console.maximumLineBytes {
                        partial.append(byte)
                    }
                }
            }
            if !partial.isEmpty { keep(&partial, onLine) }
            finished.settle(())
        }
    }

    private func keep(_ partial: inout [UInt8], _ onLine: (String) -> Void) {
        let line = String(decoding: partial, as: UTF8.self)
        partial.removeAll(keepingCapacity: true)
        kept.withLock {
            $0.lines.append(line)
            guard $0.lines.count > Console.maximumLines else { return }
            $0.lines.removeFirst()
            $0.dropped += 1
        }
        onLine(line)
    }

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
