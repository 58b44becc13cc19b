import LinuxSystem
import Synchronization

/// A pipe whose ends go to two tasks or threads: each takes its own, which closes with it.
final class PipeEnds: Sendable {
    private let reading: Mutex<SharedDescriptor?>
    private let writing: Mutex<SharedDescriptor?>

    init() throws(SystemError) {
        let (reading, writing) = try SharedDescriptor.pipe()
        self.reading = Mutex(reading)
        self.writing = Mutex(writing)
    }

    /// The end that is read; only once.
    func takeReading() throws -> SharedDescriptor { try Self.take(reading) }

    /// The end that is written to; only once.
    func takeWriting() throws -> SharedDescriptor { try Self.take(writing) }

    private static func take(_ end: borrowing Mutex<SharedDescriptor?>) throws -> SharedDescriptor {
        let taken = end.withLock { end in
            defer { end = nil }
            return end
        }
        guard let taken else { throw SystemError("take", "an end of a pipe", errno: .badFileDescriptor) }
        return taken
    }
}
