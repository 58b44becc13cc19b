/// A device whose queues are served one by one, by whoever hears their kicks: `ThreadQueues` or `LoopQueues`.
protocol QueueDevice: AnyObject {
    var queues: [Virtqueue] { get }
    /// Serves what is in a queue.
    /// - Parameter interrupt: called when the driver wants to hear of answers.
    /// - Returns: whether there may be more: call again, after others had their turn.
    func process(queue: Int, interrupt: () -> Void) throws(QueueError) -> Bool
}

extension Virtqueue {
    /// Serves what is in the queue, at most `budget` chains, and gives each back at once: somebody in the guest may
    /// wait for this very answer.
    /// - Parameter body: does what the held chain asks for, and answers how many bytes it wrote.
    /// - Returns: whether there may be more. If not, the driver's next chain comes with a kick.
    @inline(__always)
    func serve(budget: Int, interrupt: () -> Void, _ body: () -> UInt32) throws(QueueError) -> Bool {
        guard isRunning else { return false }
        var left = budget
        disarmKick()
        repeat {
            while left > 0, try next() {
                left -= 1
                complete(written: body())
                if needsInterrupt() { interrupt() }
            }
            if left == 0 { return true }
        } while armKick()
        return false
    }
}
