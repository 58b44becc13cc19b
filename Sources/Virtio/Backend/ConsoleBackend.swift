public import LinuxSystem

/// The console behind a transport, on an event loop.
public final class ConsoleBackend: BackendDevice {
    private let device: ConsoleDevice
    private let queues: LoopQueues<ConsoleDevice>

    /// - Parameters:
    ///   - output: a pipe, socket or terminal that gets what the guest writes. It becomes non-blocking, for all who
    ///     share its open file; a process that writes to one whose reader may go ignores SIGPIPE.
    ///   - input: where the guest's input comes from. It becomes non-blocking too.
    ///   - onBroken: the driver broke a ring.
    public init(
        output: SharedDescriptor, input: SharedDescriptor? = nil, loop: EventLoop,
        onBroken: @escaping (String) -> Void
    ) throws(SystemError) {
        var way: ConsoleInput?
        if let input { way = try ConsoleInput(input, loop: loop) }
        device = ConsoleDevice(output: try ConsoleOutput(output, loop: loop), input: way)
        queues = LoopQueues("console", device, loop: loop, onBroken: onBroken)
        way?.onReadable = { [unowned queues] in queues.serve(ConsoleDevice.receiveQueue) }
    }

    public var features: UInt64 { 0 }
    public var queueCount: Int { device.queues.count }
    public var ownsConfiguration: Bool { true }
    /// Columns, rows, ports, and the register for emergencies (virtio 1.2, 5.3.4): no feature fills them.
    public var configuration: [UInt8] { [UInt8](repeating: 0, count: 12) }
    public func start(queue: Int, _ setup: QueueSetup) throws { try queues.start(queue: queue, setup) }

    public func stop(queue: Int) -> UInt16 {
        if queue == ConsoleDevice.receiveQueue { device.input?.watch(false) }
        return queues.stop(queue: queue)
    }

    /// Waits until the output's reader has what the guest wrote, at most so many milliseconds: before the process ends.
    public func finish(milliseconds: Int) { device.output.finish(milliseconds: milliseconds) }
}
