import Glibc
import LinuxSystem

/// Serves a device's queues on threads of its own: for requests that may block, for example on a disk.
final class ThreadQueues<Device: ThreadedDevice & Sendable>: Sendable {
    private let device: Device
    private let workers: [QueueWorker<Service>]
    private let thread: @Sendable (Int) -> Int

    /// - Parameters:
    ///   - name: of the device, for messages and the list of threads.
    ///   - threads: the number of threads. Thread `thread(i)` modulo `threads` serves queue i.
    ///   - onBroken: the driver broke a ring; called on any thread.
    init(
        _ name: String, _ device: Device, threads: Int = 1, of thread: @escaping @Sendable (Int) -> Int = { $0 },
        onBroken: @escaping @Sendable (String) -> Void
    ) throws(SystemError) {
        self.device = device
        self.thread = thread
        let service = Service(name: name, device: device, onBroken: onBroken)
        var workers: [QueueWorker<Service>] = []
        for number in 0..<max(1, threads) { workers.append(try QueueWorker("\(name) \(number)", service: service)) }
        self.workers = workers
    }

    private struct Service: QueueService {
        let name: String
        let device: Device
        let onBroken: @Sendable (String) -> Void

        func serve(_ queue: Int, _ lines: RingLines) -> ServiceProgress {
            do {
                return try device.serve(queue: queue) { lines.interrupt() }
            } catch {
                lines.reportError()
                onBroken("\(name) queue \(queue): \(error)")
                return .nothing
            }
        }

        func isPending(_ queue: Int) -> Bool { device.isPending(queue: queue) }

        func arm(_ queue: Int, isIdle: Bool) -> Bool { device.arm(queue: queue, isIdle: isIdle) }

        func flushInterrupt(_ queue: Int, _ lines: RingLines) {
            device.flushInterrupt(queue: queue) { lines.interrupt() }
        }

        func source(_ queue: Int) -> Int32? { device.source(of: queue) }

        func waitsForSource(_ queue: Int) -> Bool { device.waitsForSource(queue: queue) }

        var pollsSources: Bool { device.pollsSources }
    }

    deinit { for worker in workers { worker.end() } }

    func start(queue: Int, _ setup: QueueSetup) throws {
        let device = device
        try worker(queue).sync { loop -> Result<Void, any Error> in
            Result {
                try device.queues[queue].start(
                    setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
                do {
                    try loop.add(queue, kick: setup.kick, lines: setup.lines)
                } catch {
                    device.queues[queue].stop()
                    throw error
                }
            }
        }.get()
    }

    /// Stops a queue, after the requests in progress.
    ///
    /// - Returns: the queue's position.
    func stop(queue: Int) -> UInt16 {
        let device = device
        do {
            return try worker(queue).sync { loop in
                device.finish(queue: queue)
                loop.remove(queue)
                device.queues[queue].stop()
                return device.queues[queue].position
            }
        } catch {
            // There is no descriptor left to wait with. The thread may still use guest memory, so only the end of the process
            // is safe.
            endProcess("stop queue \(queue): \(error)")
        }
    }

    /// Wakes all threads, which check their queues and sources again. Does not wait for them.
    func wakeUp() { for worker in workers { worker.wakeUp() } }

    private func worker(_ queue: Int) -> QueueWorker<Service> { workers[thread(queue) % workers.count] }
}
