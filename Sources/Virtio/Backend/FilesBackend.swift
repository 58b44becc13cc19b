import Glibc
import LinuxSystem

/// The file device behind vhost-user. Its queues are served by threads of their own: a request may wait for a disk.
public final class FilesBackend: BackendDevice {
    private let device: FileDevice
    private let workers: [QueueWorker]

    /// - Parameters:
    ///   - threads: queue i is served by thread i modulo so many.
    ///   - onBroken: the driver broke a ring; called on any thread.
    public init(device: FileDevice, threads: Int = 1, onBroken: @escaping @Sendable (String) -> Void) throws {
        self.device = device
        workers = try (0..<max(1, threads)).map { number in
            try QueueWorker("queue \(number)") { queue, lines in
                do {
                    return try device.process(queue: queue) { lines.interrupt() }
                } catch {
                    lines.reportError()
                    onBroken("file system queue \(queue): \(error)")
                    return false
                }
            }
        }
    }

    deinit { for worker in workers { worker.end() } }

    public var features: UInt64 { 0 }
    public var queueCount: Int { device.queues.count }
    /// QEMU keeps the tag itself.
    public var ownsConfiguration: Bool { false }
    public var configuration: [UInt8] { device.configuration }

    public func start(queue: Int, _ setup: QueueSetup) throws {
        let device = device
        try worker(queue).sync { loop -> Result<Void, any Error> in
            Result {
                try device.queues[queue].start(
                    setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
                try loop.add(queue, kick: setup.kick, lines: setup.lines)
            }
        }.get()
    }

    public func stop(queue: Int) -> UInt16 {
        let device = device
        do {
            return try worker(queue).sync { loop in
                loop.remove(queue)
                device.queues[queue].stop()
                return device.queues[queue].position
            }
        } catch {
            // Without a descriptor to wait with there is no way to stop safely but this one.
            let line = Array("martlet-device: stop queue \(queue): \(error)\n".utf8)
            _ = write(2, line, line.count)
            exit(1)
        }
    }

    private func worker(_ queue: Int) -> QueueWorker { workers[queue % workers.count] }
}
