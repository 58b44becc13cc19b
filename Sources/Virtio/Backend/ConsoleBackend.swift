public import LinuxSystem

/// The console as a transport drives it, on an event loop.
public final class ConsoleBackend: BackendDevice {
    private let device: ConsoleDevice
    private let queues: LoopQueues<ConsoleDevice>

    /// - Parameters:
    ///   - output: a pipe, socket or terminal that gets what the guest writes. It becomes non-blocking, also for others that
    ///     share the open file. The process must ignore SIGPIPE if the reader may go away.
    ///   - input: the descriptor that the guest's input is read from. It becomes non-blocking too.
    ///   - onBroken: called with the reason when the driver broke a ring.
    public init(
        output: SharedDescriptor, input: SharedDescriptor? = nil, loop: EventLoop,
        onBroken: @escaping (String) -> Void
    ) throws(SystemError) {
        var consoleInput: ConsoleInput?
        if let input { consoleInput = try ConsoleInput(input, loop: loop) }
        device = ConsoleDevice(output: try ConsoleOutput(output, loop: loop), input: consoleInput)
        queues = LoopQueues("console", device, loop: loop, onBroken: onBroken)
        consoleInput?.onReadable = { [unowned queues] in queues.serve(ConsoleDevice.receiveQueue) }
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { device.queues.count }
    public var queueCounts: [QueueCounters.Counts] { device.queues.map(\.counters.counts) }
    public var ownsConfiguration: Bool { true }
    /// Columns, rows, number of ports and the emergency write register (virtio 1.2, 5.3.4). All are 0, since their features are
    /// not offered.
    public var configuration: [UInt8] { [UInt8](repeating: 0, count: 12) }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }

    public func stop(queue: Int) -> UInt16 {
        if queue == ConsoleDevice.receiveQueue { device.input?.watch(false) }
        return queues.stop(queue: queue)
    }

    /// Waits until the reader has taken all output, at most `milliseconds`. Called before the process ends.
    public func finish(milliseconds: Int) { device.output.finish(milliseconds: milliseconds) }
}
