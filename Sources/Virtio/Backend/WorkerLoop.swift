import Glibc
import LinuxSystem
import Synchronization

/// The state that only a worker's thread touches: its queues, and how it waits for work in them.
final class WorkerLoop<Service: QueueService> {
    private struct Entry {
        var queue: Int
        var kick: SharedDescriptor
        var lines: RingLines
        /// A descriptor that also gives the queue work, and whether the loop waits for it now.
        var source: Int32?
        var isWatched = false
    }

    /// A guest that has sent no request for this long is idle, nanoseconds.
    private static var idleAfter: UInt64 { 5_000_000 }
    /// How often a worker with a source yields its CPU and checks its queues again before it asks for a kick. A kick costs the
    /// guest an exit, and sleeping and waking cost both sides more than a check.
    private static var yieldLimit: Int { 8 }

    private let events: EventLoop
    private let service: Service
    private var entries: ContiguousArray<Entry> = []
    private var policy = PollPolicy()
    /// Whether a queue has a source that takes a system call to check: such a worker does not poll. Its device sends
    /// interrupts at once, so nothing is left to send when the guest becomes idle, and the worker needs no timer.
    private var hasSource = false
    /// How many yields are left since something was served.
    private var yieldsLeft = 0
    /// The guest has sent no request for `idleAfter`.
    private var isIdle = true
    /// When the queues became empty, and how long the worker waited from then until there seemed to be work.
    private var waitBegan: UInt64 = 0
    private var waited: UInt64 = 0
    /// Another thread had the CPU while this one polled.
    private var wasPreempted = false

    /// - Parameters:
    ///   - wake: an eventfd that wakes the loop.
    ///   - woken: called when it was signalled.
    init(_ service: Service, wake: Int32, woken: @escaping () -> Void) throws(SystemError) {
        self.service = service
        events = try EventLoop()
        try events.add(wake, .readable) { _ in woken() }
    }

    /// Serves a queue from now on, at every kick.
    func add(_ queue: Int, kick: SharedDescriptor, lines: RingLines) throws(SystemError) {
        try events.add(kick.raw, .readable) { [unowned self] _ in
            // A descriptor that is not an eventfd would stay ready and keep the loop busy.
            if consumeKick(kick.raw) { return }
            lines.reportError()
            remove(queue)
        }
        let source = service.source(queue)
        entries.append(Entry(queue: queue, kick: kick, lines: lines, source: source))
        if source != nil, !service.pollsSources { hasSource = true }
    }

    /// Stops serving a queue.
    func remove(_ queue: Int) {
        guard let index = entries.firstIndex(where: { $0.queue == queue }) else { return }
        let entry = entries.remove(at: index)
        events.remove(entry.kick.raw)
        if entry.isWatched, let source = entry.source { events.remove(source) }
        service.flushInterrupt(entry.queue, entry.lines)
    }

    /// Serves what is in the queues. When they are empty, waits for more, or until `hasTasks` is set.
    func runRound(_ hasTasks: borrowing Atomic<Bool>) throws(SystemError) {
        switch serveAll() {
        case .more:
            waited = 0
            return try events.runOnce(timeoutMilliseconds: 0)
        case .done:
            if waited > 0 { policy.record(waited, preempted: wasPreempted) }
            waitBegan = monotonicNanoseconds()
            isIdle = false
            wasPreempted = false
            yieldsLeft = hasSource ? Self.yieldLimit : 0
            if !hasSource, policy.isPolling, poll(hasTasks) { return recordWait() }
        case .nothing:
            if yieldsLeft == 0, !isIdle, waited >= Self.idleAfter { becomeIdle() }
        }
        if yieldsLeft > 0 {
            yieldsLeft -= 1
            sched_yield()
            return
        }
        var pending = false
        for entry in entries where service.arm(entry.queue, isIdle: isIdle) { pending = true }
        try watchSources()
        if !pending {
            try events.runOnce(timeoutMilliseconds: isIdle || hasSource ? -1 : Int32(Self.idleAfter / 1_000_000))
        }
        recordWait()
    }

    /// Watches the sources of queues that have room. Others would be ready all the time.
    private func watchSources() throws(SystemError) {
        for index in entries.indices {
            guard let source = entries[index].source else { continue }
            let shallWatch = service.waitsForSource(entries[index].queue)
            if shallWatch == entries[index].isWatched { continue }
            if shallWatch { try events.add(source, .readable) { _ in } } else { events.remove(source) }
            entries[index].isWatched = shallWatch
        }
    }

    private func recordWait() { waited = monotonicNanoseconds() &- waitBegan }

    private func serveAll() -> ServiceProgress {
        var result = ServiceProgress.nothing
        for entry in entries {
            switch service.serve(entry.queue, entry.lines) {
            case .nothing: break
            case .done: if result == .nothing { result = .done }
            case .more: result = .more
            }
        }
        return result
    }

    private func becomeIdle() {
        isIdle = true
        for entry in entries { service.flushInterrupt(entry.queue, entry.lines) }
    }

    /// Checks for work without sleeping.
    ///
    /// - Returns: whether there is some.
    private func poll(_ hasTasks: borrowing Atomic<Bool>) -> Bool {
        var last = waitBegan
        repeat {
            for _ in 0..<16 {
                for index in entries.indices where service.isPending(entries[index].queue) { return true }
            }
            let now = monotonicNanoseconds()
            if now &- last > PollPolicy.preemption { wasPreempted = true }
            last = now
        } while last &- waitBegan < PollPolicy.longest && !hasTasks.load(ordering: .relaxed)
        return false
    }
}
