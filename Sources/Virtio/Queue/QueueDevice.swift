/// A device whose queues are served one by one, by whoever hears their kicks: `ThreadQueues` or `LoopQueues`.
protocol QueueDevice: AnyObject {
    var queues: [Virtqueue] { get }
    /// Serves what is in a queue.
    /// - Parameter interrupt: called when the driver wants to hear of answers.
    /// - Returns: whether there may be more: call again, after others had their turn.
    func process(queue: Int, interrupt: () -> Void) throws(QueueError) -> Bool
}

/// What serving a queue has come to.
enum ServiceProgress {
    /// There was nothing to do.
    case nothing
    case done
    /// Some may be left: others first.
    case more
}

/// A device whose queues may be served by a thread that looks for work by itself: `ThreadQueues`.
protocol ThreadedDevice: QueueDevice {
    /// As `process`, but no kick is asked for, and of what nobody waits for the driver may hear later, by `settle`.
    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress
    /// Whether what comes in this queue can wait until there is more of it, or until another queue has work.
    func isPatient(queue: Int) -> Bool
    /// Asks for a kick; true when there is something to serve already.
    ///
    /// - Parameter isIdle: the driver is quiet. One that is not will soon be served anyway, and a kick costs it time.
    func arm(queue index: Int, isIdle: Bool) -> Bool
    /// A descriptor that gives a queue work when it can be read; nil where all work comes from the driver.
    func source(of queue: Int) -> Int32?
    /// Whether the queue's source is what it waits for: it has room for what is there.
    func waitsForSource(queue: Int) -> Bool
}

extension ThreadedDevice {
    func isPatient(queue: Int) -> Bool { false }
    func source(of queue: Int) -> Int32? { nil }
    func waitsForSource(queue: Int) -> Bool { false }
    func arm(queue index: Int, isIdle: Bool) -> Bool { armByDefault(queue: index, isIdle: isIdle) }

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        repeat {
            if try serve(queue: index, interrupt: interrupt) == .more { return true }
        } while arm(queue: index, isIdle: true)
        settle(queue: index, interrupt: interrupt)
        return false
    }

    /// `arm` where the driver alone brings work.
    func armByDefault(queue index: Int, isIdle: Bool) -> Bool {
        let queue = queues[index]
        return queue.armKick(after: isPatient(queue: index) && !isIdle ? max(1, queue.size / 4) : 1)
    }

    /// Tells the driver of all that was given back.
    func settle(queue index: Int, interrupt: () -> Void) {
        if queues[index].needsInterrupt() { interrupt() }
    }
}

extension Virtqueue {
    /// Serves what is in the queue, at most `budget` chains.
    /// - Parameter body: does what the held chain asks for, and answers how many bytes it wrote.
    /// - Returns: whether there may be more. If not, the driver's next chain comes with a kick.
    @inline(__always)
    func serve(budget: Int, interrupt: () -> Void, _ body: () -> UInt32) throws(QueueError) -> Bool {
        repeat {
            let progress = try take(budget: budget, interrupt: interrupt, body)
            if needsInterrupt() { interrupt() }
            if progress == .more { return true }
        } while armKick()
        return false
    }

    /// As `serve`, but no kick is asked for, and the driver hears at once only of chains with room for an answer:
    /// somebody in the guest may wait for this very one. Of others it hears before it runs short of descriptors, with
    /// the next of those, or when somebody calls `needsInterrupt`.
    @inline(__always)
    func take(budget: Int, interrupt: () -> Void, _ body: () -> UInt32) throws(QueueError) -> ServiceProgress {
        guard isRunning else { return .nothing }
        disarmKick()
        for served in 0..<budget {
            guard try next() else { return served == 0 ? .nothing : .done }
            let isAwaited = writableBytes > 0
            complete(written: body())
            if isAwaited || unannounced >= size / 4, needsInterrupt() { interrupt() }
        }
        return .more
    }
}
