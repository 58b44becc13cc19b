import Glibc
import LinuxSystem

/// Serves a device's queues on an event loop: for requests that never block.
final class LoopQueues<Device: QueueDevice> {
    private let name: String
    private let device: Device
    private let loop: EventLoop
    private let onBroken: (String) -> Void
    private var running: [(kick: SharedDescriptor, lines: RingLines)?]

    /// - Parameters:
    ///   - name: of the device, for messages.
    ///   - onBroken: called with the reason, on the loop's thread, when the driver broke a ring.
    init(_ name: String, _ device: Device, loop: EventLoop, onBroken: @escaping (String) -> Void) {
        self.name = name
        self.device = device
        self.loop = loop
        self.onBroken = onBroken
        running = device.queues.map { _ in nil }
    }

    deinit {
        for case let queue? in running { loop.remove(queue.kick.raw) }
    }

    /// Starts a queue.
    ///
    /// - Parameter servesAtOnce: what is in it is served before this returns; if not, in the loop's next round.
    func start(queue: Int, _ setup: QueueSetup, servesAtOnce: Bool = true) throws {
        try device.queues[queue].start(
            setup.geometry, memory: setup.memory, features: setup.features, position: setup.position)
        do {
            try loop.add(setup.kick.raw, .readable) { [unowned self] _ in kicked(queue) }
        } catch {
            device.queues[queue].stop()
            throw error
        }
        running[queue] = (setup.kick, setup.lines)
        if servesAtOnce { serve(queue) } else { setup.kick.signal() }
    }

    /// Stops a queue and returns its position.
    func stop(queue: Int) -> UInt16 {
        if let (kick, _) = running[queue] { loop.remove(kick.raw) }
        running[queue] = nil
        device.queues[queue].stop()
        return device.queues[queue].position
    }

    /// Serves what is in a queue, if it runs.
    func serve(_ queue: Int) {
        guard let (kick, lines) = running[queue] else { return }
        do {
            guard try device.process(queue: queue, interrupt: { lines.interrupt() }) else { return }
            // Other descriptors get their turn first: this kick makes the queue ready again in the loop's next round.
            kick.signal()
        } catch {
            stopListening(queue, "\(error)")
        }
    }

    private func kicked(_ queue: Int) {
        guard let (kick, _) = running[queue] else { return }
        if consumeKick(kick.raw) { return serve(queue) }
        stopListening(queue, "the kick descriptor is not an eventfd")
    }

    private func stopListening(_ queue: Int, _ reason: String) {
        guard let (kick, lines) = running[queue] else { return }
        loop.remove(kick.raw)
        lines.reportError()
        onBroken("\(name) queue \(queue): \(reason)")
    }
}
