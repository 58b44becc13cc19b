import Glibc
import LinuxSystem
import Synchronization

/// What a worker's thread alone touches: its queues, and how it waits for work in them.
final class WorkerLoop<Service: QueueService> {
    private struct Entry {
        var queue: Int
        var kick: SharedDescriptor
        var lines: RingLines
        /// What else gives the queue work, and whether it is waited for now.
        var source: Int32?
        var isWatched = false
    }

    /// A guest that has asked for nothing for so long is quiet, nanoseconds.
    private static var quietAfter: UInt64 { 5_000_000 }
    /// Who looks sees all the time whether it can go on; a longer step means that others had the processor, nanoseconds.
    private static var disturbance: UInt64 { 50_000 }
    /// How often a worker with a source gives its processor to others and sees what they left, before it asks for a kick: one
    /// costs the guest an exit, and to sleep and wake costs both sides more than a glance.
    private static var glances: Int { 8 }

    private let events: EventLoop
    private let service: Service
    private var entries: ContiguousArray<Entry> = []
    private var judge = PollPolicy()
    /// Whether a queue has a source. It can't be seen without a system call whether there is something, so the worker does not
    /// look. Its device tells the driver all at once, so that nothing is left to do when the guest has become quiet; a timer for each
    /// wait has its price.
    private var hasSource = false
    /// How many glances are left since something was served.
    private var glancesLeft = 0
    /// The guest has been quiet for a while.
    private var isIdle = true
    /// When all that was there had been served, and how long it was from then on until something seemed to be there.
    private var waitBegan: UInt64 = 0
    private var waited: UInt64 = 0
    /// Another thread had the processor while this one looked.
    private var disturbed = false

    init(_ service: Service, wake: Int32, woken: @escaping () -> Void) throws(SystemError) {
        self.service = service
        events = try EventLoop()
        try events.add(wake, .readable) { _ in woken() }
    }

    /// Serves a queue from now on, at every kick.
    func add(_ queue: Int, kick: SharedDescriptor, lines: RingLines) throws(SystemError) {
        try events.add(kick.raw, .readable) { [unowned self] _ in
            // A descriptor that is no eventfd would be ready for ever.
            if consumeKick(kick.raw) { return }
            lines.reportError()
            remove(queue)
        }
        let source = service.source(queue)
        entries.append(Entry(queue: queue, kick: kick, lines: lines, source: source))
        if source != nil { hasSource = true }
    }

    /// Serves a queue no more.
    func remove(_ queue: Int) {
        guard let place = entries.firstIndex(where: { $0.queue == queue }) else { return }
        let entry = entries.remove(at: place)
        events.remove(entry.kick.raw)
        if entry.isWatched, let source = entry.source { events.remove(source) }
        service.settle(queue, entry.lines)
    }

    /// Serves what is there; when that is all, waits for more, or until `isWanted`.
    func round(_ isWanted: borrowing Atomic<Bool>) throws(SystemError) {
        switch serveAll() {
        case .more:
            waited = 0
            return try events.runOnce(timeoutMilliseconds: 0)
        case .done:
            if waited > 0 { judge.note(waited, disturbed: disturbed) }
            waitBegan = monotonicNanoseconds()
            isIdle = false
            disturbed = false
            glancesLeft = hasSource ? Self.glances : 0
            if !hasSource, judge.looks, look(isWanted) { return noteWait() }
        case .nothing:
            if glancesLeft == 0, !isIdle, waited >= Self.quietAfter { becomeIdle() }
        }
        if glancesLeft > 0 {
            glancesLeft -= 1
            sched_yield()
            return
        }
        var pending = false
        for entry in entries where service.arm(entry.queue, isIdle: isIdle) { pending = true }
        try watchSources()
        if !pending {
            try events.runOnce(timeoutMilliseconds: isIdle || hasSource ? -1 : Int32(Self.quietAfter / 1_000_000))
        }
        noteWait()
    }

    /// Waits for the sources of queues that can take something, and for no others: these would be ready without end.
    private func watchSources() throws(SystemError) {
        for place in entries.indices {
            guard let source = entries[place].source else { continue }
            let wanted = service.waitsForSource(entries[place].queue)
            if wanted == entries[place].isWatched { continue }
            if wanted { try events.add(source, .readable) { _ in } } else { events.remove(source) }
            entries[place].isWatched = wanted
        }
    }

    private func noteWait() { waited = monotonicNanoseconds() &- waitBegan }

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
        for entry in entries { service.settle(entry.queue, entry.lines) }
    }

    /// Looks for work without sleeping; true when there is some.
    private func look(_ isWanted: borrowing Atomic<Bool>) -> Bool {
        var last = waitBegan
        repeat {
            for _ in 0..<16 {
                for place in entries.indices where service.isPending(entries[place].queue) { return true }
            }
            let now = monotonicNanoseconds()
            if now &- last > Self.disturbance { disturbed = true }
            last = now
        } while last &- waitBegan < PollPolicy.longest && !isWanted.load(ordering: .relaxed)
        return false
    }
}
