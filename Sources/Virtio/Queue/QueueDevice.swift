/// A device whose queues are served one by one at each kick, by `ThreadQueues` or `LoopQueues`.
protocol QueueDevice: AnyObject {
    var queues: [Virtqueue] { get }
    /// Serves what is in a queue.
    ///
    /// - Parameter interrupt: called when the driver wants an interrupt.
    /// - Returns: whether there may be more. The caller calls again after it has served other queues.
    /// - Throws: `QueueError` when the driver broke the ring.
    func process(queue: Int, interrupt: () -> Void) throws(QueueError) -> Bool
}

/// The result of serving a queue.
enum ServiceProgress {
    /// There was nothing to do.
    case nothing
    /// Everything in the queue was served.
    case done
    /// The budget ran out, and there may be more.
    case more
}

/// A device whose queues a thread may poll: `ThreadQueues`.
protocol ThreadedDevice: QueueDevice {
    /// Serves a queue as `process` does, but asks for no kick. It may leave out interrupts that no task in the guest waits for;
    /// `flushInterrupt` sends them later.
    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress
    /// Whether the driver may collect several chains of this queue before it kicks. Used for requests that get no reply.
    func coalescesKicks(queue: Int) -> Bool
    /// Asks the driver for a kick.
    ///
    /// - Parameter isIdle: the driver is idle. One that is not will soon be served anyway, and a kick costs it time.
    /// - Returns: whether there is something to serve already.
    func arm(queue index: Int, isIdle: Bool) -> Bool
    /// A descriptor that gives the queue work when it is readable; nil when all work comes from the driver.
    func source(of queue: Int) -> Int32?
    /// Whether the queue waits for its source: the driver has given it buffers to read into.
    func waitsForSource(queue: Int) -> Bool
    /// Whether `isPending` also tells of the sources, so that a thread may poll them without a system call.
    var pollsSources: Bool { get }
    /// Whether there is something to serve. Costs no system call.
    func isPending(queue: Int) -> Bool
    /// Waits for the requests in progress and completes them, before the queue is stopped.
    func finish(queue: Int)
}

extension ThreadedDevice {
    func coalescesKicks(queue: Int) -> Bool { false }
    func source(of queue: Int) -> Int32? { nil }
    func waitsForSource(queue: Int) -> Bool { false }
    var pollsSources: Bool { false }
    func isPending(queue: Int) -> Bool { queues[queue].isPending }
    func finish(queue: Int) {}
    func arm(queue index: Int, isIdle: Bool) -> Bool { armByDefault(queue: index, isIdle: isIdle) }

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        repeat {
            if try serve(queue: index, interrupt: interrupt) == .more { return true }
        } while arm(queue: index, isIdle: true)
        flushInterrupt(queue: index, interrupt: interrupt)
        return false
    }

    /// `arm` for a queue that has no source.
    func armByDefault(queue index: Int, isIdle: Bool) -> Bool {
        let queue = queues[index]
        return queue.armKick(after: coalescesKicks(queue: index) && !isIdle ? max(1, queue.size / 4) : 1)
    }

    /// Interrupts the driver for all completed chains, if it wants that.
    func flushInterrupt(queue index: Int, interrupt: () -> Void) {
        if queues[index].needsInterrupt() { interrupt() }
    }
}

extension Virtqueue {
    /// Serves what is in the queue, at most `budget` chains, and asks for a kick when it is empty.
    ///
    /// - Parameter body: performs the request in the current chain and returns how many bytes it wrote.
    /// - Returns: whether there may be more. If not, the driver kicks when it adds the next chain.
    @inline(__always)
    func serve(budget: Int, interrupt: () -> Void, _ body: () -> UInt32) throws(QueueError) -> Bool {
        repeat {
            let progress = try serveWithoutKick(budget: budget, interrupt: interrupt, body)
            if needsInterrupt() { interrupt() }
            if progress == .more { return true }
        } while armKick()
        return false
    }

    /// Serves the queue as `serve` does, but asks for no kick and sends fewer interrupts.
    ///
    /// A chain with room for a reply is interrupted for at once, because a task in the guest may wait for it. For others an
    /// interrupt is sent before the driver runs out of descriptors, with the next chain that has room for a reply, or when the
    /// caller calls `needsInterrupt`.
    @inline(__always)
    func serveWithoutKick(budget: Int, interrupt: () -> Void, _ body: () -> UInt32) throws(QueueError)
        -> ServiceProgress
    {
        guard isRunning else { return .nothing }
        disarmKick()
        for served in 0..<budget {
            guard try next() else { return served == 0 ? .nothing : .done }
            let isAwaited = writableBytes > 0
            complete(written: body())
            if isAwaited || completedSinceInterrupt >= size / 4, needsInterrupt() { interrupt() }
        }
        return .more
    }
}
