import Glibc
public import LinuxSystem
import Synchronization

/// A device with its threads and sockets, as a transport drives it. The transport is virtio-mmio in the VMM, or vhost-user
/// in a device process.
///
/// All calls come from the transport's thread. A device that has threads of its own waits for them where the comments say so.
public protocol BackendDevice: AnyObject {
    /// The device's own virtio feature bits, without those of the ring.
    var features: UInt64 { get }
    var queueCount: Int { get }
    /// Whether the device supplies its configuration space. If not, the vhost-user front end does.
    var ownsConfiguration: Bool { get }
    /// The configuration space, as it is now.
    var configuration: [UInt8] { get }
    /// What each queue has done; none where another process serves them.
    var queueCounts: [QueueCounters.Counts] { get }
    /// Has the device call `changed`, on any thread, after its configuration space has changed by itself. A device whose
    /// space never does so does nothing.
    func onConfigurationChange(_ changed: @escaping @Sendable () -> Void)
    /// Has the device call `show`, on the transport's thread, after its configuration space has changed in a way that the driver is not
    /// to be told of. When `show` returns the driver reads the new one. A device whose space never does so does nothing.
    func onQuietConfigurationChange(_ show: @escaping () -> Void)
    /// The driver has written to the configuration space. A device whose space is read-only does nothing.
    ///
    /// - Parameters:
    ///   - bytes: 1, 2 or 4.
    ///   - offset: from the space's start on; may lie behind its end.
    func writeConfiguration(_ bytes: [UInt8], at offset: Int)
    /// What the device keeps that is in no queue and in no register of the transport, 64 KiB at most; read while the device runs.
    var savedState: [UInt8] { get }
    /// Sets what `savedState` was, after the queues have started.
    ///
    /// - Parameter state: not trusted.
    /// - Throws: `DeviceStateError` where it is not the state of such a device. Then nothing is set.
    func restore(savedState state: [UInt8]) throws(DeviceStateError)
    /// Starts to serve a queue, and serves what is in it already.
    ///
    /// - Throws: `QueueError` when the driver's geometry is wrong, `SystemError` when a descriptor can't be watched.
    func start(queue: Int, _ setup: QueueSetup) throws
    /// Stops serving a queue, after the requests in progress. The device touches no guest memory of the queue afterwards.
    ///
    /// - Returns: the queue's position: the index of the available entry that would be taken next.
    func stop(queue: Int) -> UInt16
}

extension BackendDevice {
    public var queueCounts: [QueueCounters.Counts] { [] }
    public func onConfigurationChange(_ changed: @escaping @Sendable () -> Void) {}
    public func onQuietConfigurationChange(_ show: @escaping () -> Void) {}
    public var savedState: [UInt8] { [] }
    public func restore(savedState state: [UInt8]) throws(DeviceStateError) {
        try DeviceStateReader("device", section: "saved state", state[...]).finish()
    }
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) {}
}

/// What a device needs to serve a queue.
public struct QueueSetup: Sendable {
    public var geometry: QueueGeometry
    public var memory: GuestMemory
    /// All negotiated features, those of the device included.
    public var features: RingFeatures
    public var position: UInt16
    /// Whether the driver was reset since the queue last ran.
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

/// How a device signals the driver of a ring: an interrupt (vhost-user's *call*) and an error. The transport may replace the
/// eventfds at any time, and any thread may signal them.
public final class RingLines: Sendable {
    private struct Lines {
        var call: SharedDescriptor?
        var error: SharedDescriptor?
        var direct: (@Sendable () -> Void)?
    }
    private let lines = Mutex(Lines())

    public init() {}

    /// Sets the eventfd that `interrupt` signals; nil: none.
    public func setCall(_ descriptor: SharedDescriptor?) { lines.withLock { $0.call = descriptor } }
    /// Makes `interrupt` call `direct` instead of signalling an eventfd. It is faster, but works in the VMM's own process only.
    public func setDirect(_ direct: @escaping @Sendable () -> Void) { lines.withLock { $0.direct = direct } }
    /// Sets the eventfd that `reportError` signals; nil: none.
    public func setError(_ descriptor: SharedDescriptor?) { lines.withLock { $0.error = descriptor } }

    /// The eventfd of `interrupt`, for passing it to another process.
    public var call: SharedDescriptor? { lines.withLock { $0.call } }

    /// Interrupts the driver.
    public func interrupt() {
        lines.withLock { if let direct = $0.direct { direct() } else { $0.call?.signal() } }
    }

    /// Tells the front end that the ring is broken.
    public func reportError() { lines.withLock { $0.error?.signal() } }
}

/// Resets the counter of a kick's eventfd.
///
/// - Returns: false when the descriptor is not an eventfd. It would stay ready for ever.
func consumeKick(_ descriptor: Int32) -> Bool {
    var value: UInt64 = 0
    let count = read(descriptor, &value, 8)
    return count == 8 || count < 0 && (errno == EAGAIN || errno == EINTR)
}
