import Glibc
import LinuxSystem
import Synchronization

/// Takes what a process or a guest prints, keeps the last of it, and passes each line on.
///
/// Bounded whatever is sent: at most `maximumLines` lines of `maximumLineBytes` bytes are kept.
public final class Console: Sendable {
    public static let maximumLines = 200
    public static let maximumLineBytes = 1024

    private let lines = Mutex<[String]>([])
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
        lines.withLock {
            $0.append(line)
            if $0.count > Console.maximumLines { $0.removeFirst() }
        }
        onLine(line)
    }

    /// The last lines, oldest first.
    public func tail(_ count: Int) -> [String] { lines.withLock { Array($0.suffix(count)) } }

    /// Waits until the source has ended, so that `tail` has everything.
    public func waitForEnd(timeout: Duration) { _ = finished.wait(timeout: timeout) }
}
