import Glibc
public import LinuxSystem
import Synchronization

/// A device with its threads and sockets, as a transport drives it: virtio-mmio in the machine's process, or vhost-user
/// for another process's machine. All calls come from one thread, the transport's; a device that works on other threads
/// waits for them where the comments say so.
public protocol BackendDevice: AnyObject {
    /// Virtio feature bits of the device, besides those of the ring.
    var features: UInt64 { get }
    var queueCount: Int { get }
    /// The configuration space comes from the device, not from a vhost-user front end.
    var ownsConfiguration: Bool { get }
    /// The configuration space, as it is now.
    var configuration: [UInt8] { get }
    /// Has the device call `changed`, on any thread, after its configuration space has changed by itself. A device whose
    /// space never does so does nothing.
    func onConfigurationChange(_ changed: @escaping @Sendable () -> Void)
    /// The driver has written to the configuration space. A device whose space is read-only does nothing.
    ///
    /// - Parameters:
    ///   - bytes: 1, 2 or 4.
    ///   - offset: from the space's start on; may lie behind its end.
    func writeConfiguration(_ bytes: [UInt8], at offset: Int)
    /// Starts to serve a queue, and looks at what is in it already.
    func start(queue: Int, _ setup: QueueSetup) throws
    /// Stops serving a queue, after what is in work. Answers its position. It touches no guest memory afterwards.
    func stop(queue: Int) -> UInt16
}

extension BackendDevice {
    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) {}
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) {}
}

/// All a device needs to serve a queue.
public struct QueueSetup: Sendable {
    public var geometry: QueueGeometry
    public var memory: GuestMemory
    /// All that was negotiated, the device's own features among it.
    public var features: RingFeatures
    public var position: UInt16
    /// The driver was reset since the queue last ran.
    public var isFresh: Bool
    /// An eventfd that the driver signals.
    public var kick: SharedDescriptor
    public var lines: RingLines

    public init(
        geometry: QueueGeometry, memory: GuestMemory, features: RingFeatures, position: UInt16, isFresh: Bool,
        kick: SharedDescriptor, lines: RingLines
    ) {
        self.geometry = geometry
        self.memory = memory
        self.features = features
        self.position = position
        self.isFresh = isFresh
        self.kick = kick
        self.lines = lines
    }
}

/// The eventfds of a ring towards its driver. The transport replaces them whenever it likes; any thread signals them.
public final class RingLines: Sendable {
    private struct Lines {
        var call: SharedDescriptor?
        var error: SharedDescriptor?
        var direct: (@Sendable () -> Void)?
    }
    private let lines = Mutex(Lines())

    public init() {}

    /// Where `interrupt` goes; nil: nowhere.
    public func setCall(_ descriptor: SharedDescriptor?) { lines.withLock { $0.call = descriptor } }
    /// Has `interrupt` call `direct` instead, which other processes can't: it is quicker than an eventfd.
    public func setDirect(_ direct: @escaping @Sendable () -> Void) { lines.withLock { $0.direct = direct } }
    /// Where `reportError` goes; nil: nowhere.
    public func setError(_ descriptor: SharedDescriptor?) { lines.withLock { $0.error = descriptor } }

    /// Where `interrupt` goes: for a process that gives the interrupts itself.
    public var call: SharedDescriptor? { lines.withLock { $0.call } }

    /// Gives the driver an interrupt.
    public func interrupt() {
        lines.withLock { if let direct = $0.direct { direct() } else { $0.call?.signal() } }
    }

    /// Tells the front end that the ring is broken.
    public func reportError() { lines.withLock { $0.error?.signal() } }
}

/// Takes a kick's counter back to 0; false when the descriptor is no eventfd and would be ready for ever.
func consumeKick(_ descriptor: Int32) -> Bool {
    var value: UInt64 = 0
    let count = read(descriptor, &value, 8)
    return count == 8 || count < 0 && (errno == EAGAIN || errno == EINTR)
}
