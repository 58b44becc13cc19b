import Glibc
import Synchronization

/// A chain that was taken off its queue and not completed.
struct DetachedChain {
    fileprivate var head: UInt16
    fileprivate var readableBytes: UInt32
    fileprivate var writableBytes: UInt32
}

/// The device side of one split virtqueue (virtio 1.2, 2.7).
///
/// Geometry and negotiated features are fixed from `start` to `stop`. The driver's memory is hostile: the queue reads each
/// index and descriptor once, checks it, and never reads it again. A check that fails breaks the queue until the next `start`.
///
/// The device works on one chain at a time: it calls `next`, uses `readable` and `writable`, and calls `complete` or `putBack`; or
/// `detach`, and completes the chain later, in any order.
/// A queue belongs to one thread.
public final class Virtqueue {
    /// The largest number of descriptors in a chain, and of vectors that readv(2) accepts.
    public static let maximumChain = 1024

    /// The largest size that the driver may choose.
    public let maximumSize: UInt16
    /// What the queue has done.
    public let counters = QueueCounters()

    // Fixed while the queue runs. Pointers were checked against `memory`, which keeps the mapping alive.
    var memory: GuestMemory?
    var size: UInt16 = 0
    var descriptors: UnsafeMutableRawPointer?
    var available: UnsafeMutableRawPointer?
    var used: UnsafeMutableRawPointer?
    /// All negotiated features, those of the device included.
    public private(set) var features: RingFeatures = []
    private var eventIndex = false
    var indirect = false

    // Progress, in free-running 16-bit indices.
    var nextAvailable: UInt16 = 0
    var nextUsed: UInt16 = 0
    private var signalledUsed: UInt16?
    /// Chains completed since the last call of `needsInterrupt`.
    var completedSinceInterrupt: UInt16 = 0
    private var held: UInt16?
    /// How the driver broke the queue; nil when it did not.
    public internal(set) var broken: QueueError?
    /// Chains that form one buffer; see `gather`.
    var gathered: ContiguousArray<GatheredChain> = []

    // The current chain, or all gathered chains.
    let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: maximumChain)
    var readableCount = 0
    var vectorCount = 0
    var inWritablePart = false
    /// Bytes of the current chain that the device may read, and that it may write.
    public internal(set) var readableBytes: UInt32 = 0, writableBytes: UInt32 = 0

    public init(maximumSize: UInt16 = 1024) { self.maximumSize = maximumSize }

    deinit { vectors.deallocate() }

    public var isRunning: Bool { used != nil && broken == nil }

    /// The index of the next available entry. vhost-user calls it the ring's base.
    public var position: UInt16 { nextAvailable }

    /// Checks the geometry and starts at `position`. The used index continues from the value in the ring.
    ///
    /// - Throws: `QueueError` when the geometry is wrong.
    public func start(
        _ geometry: QueueGeometry, memory: GuestMemory, features: RingFeatures, position: UInt16
    ) throws(QueueError) {
        stop()
        let parts = try geometry.locate(in: memory, maximumSize: maximumSize)
        self.memory = memory
        size = UInt16(geometry.size)
        descriptors = parts.descriptors
        available = parts.available
        used = parts.used
        self.features = features
        eventIndex = features.contains(.eventIndex)
        indirect = features.contains(.indirectDescriptors)
        nextAvailable = position
        nextUsed = atomic16(parts.used, 2).pointee.load(ordering: .acquiring)
        signalledUsed = nil
        completedSinceInterrupt = 0
    }

    /// Stops the queue and drops its pointers. A chain that was taken and not completed is lost, as on a reset.
    public func stop() {
        nextAvailable &-= UInt16(truncatingIfNeeded: gathered.count)
        gathered.removeAll(keepingCapacity: true)
        memory = nil
        descriptors = nil
        available = nil
        used = nil
        held = nil
        broken = nil
        clearChain()
    }

    @inline(__always)
    func atomic16(_ base: UnsafeMutableRawPointer, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt16>> {
        (base + offset).assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    // MARK: Chains

    /// Takes the next chain that the driver has made available.
    ///
    /// - Returns: false when there is none.
    /// - Throws: `QueueError` when the driver broke the ring, now or before.
    public func next() throws(QueueError) -> Bool {
        if let broken { throw broken }
        guard let available else { throw .stopped }
        let ahead = atomic16(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable
        if ahead == 0 { return false }
        do throws(QueueError) {
            guard ahead <= size else { throw .availableIndexAhead(by: ahead, size: size) }
            let slot = Int(nextAvailable & (size &- 1))
            let head = atomic16(available, 4 + 2 * slot).pointee.load(ordering: .relaxed)
            guard head < size else { throw .headBeyondTable(head) }
            clearChain()
            try walk(head)
            nextAvailable &+= 1
            held = head
            return true
        } catch {
            clearChain()
            broken = error
            throw error
        }
    }

    /// Returns the current chain to the driver, with `written` bytes in it.
    public func complete(written: UInt32) {
        if let chain = detach() { complete(chain, written: written) }
    }

    /// Takes the current chain off, to be completed later: its buffers stay where they are until then, but `readable` and
    /// `writable` no longer have them.
    ///
    /// - Returns: nil when there is no current chain.
    func detach() -> DetachedChain? {
        guard let held else { return nil }
        defer {
            self.held = nil
            clearChain()
        }
        return DetachedChain(head: held, readableBytes: readableBytes, writableBytes: writableBytes)
    }

    /// Returns a chain that was taken off to the driver, with `written` bytes in it. A stopped queue takes none.
    func complete(_ chain: DetachedChain, written: UInt32) {
        guard let used else { return }
        let element = used + 4 + 8 * Int(nextUsed & (size &- 1))
        element.storeBytes(of: UInt32(chain.head), as: UInt32.self)
        let length = min(written, chain.writableBytes)
        (element + 4).storeBytes(of: length, as: UInt32.self)
        counters.chain(read: chain.readableBytes, written: length)
        nextUsed &+= 1
        atomic16(used, 2).pointee.store(nextUsed, ordering: .releasing)
        completedSinceInterrupt &+= 1
    }

    /// Puts the current chain back: `next` takes it again.
    public func putBack() {
        guard held != nil else { return }
        nextAvailable &-= 1
        held = nil
        clearChain()
    }

    /// The current chain's buffers that the device may read. Valid until the chain is completed or put back.
    public var readable: UnsafeBufferPointer<iovec> { UnsafeBufferPointer(start: vectors, count: readableCount) }

    /// The current chain's buffers that the device may write. Valid until the chain is completed or put back.
    public var writable: UnsafeBufferPointer<iovec> {
        UnsafeBufferPointer(start: vectors + readableCount, count: vectorCount - readableCount)
    }

    private func clearChain() {
        readableCount = 0
        vectorCount = 0
        inWritablePart = false
        readableBytes = 0
        writableBytes = 0
    }

    // MARK: Notifications (virtio 1.2, 2.7.7 and 2.7.10)

    /// Whether the driver wants an interrupt for the chains completed since the last call. It is counted as sent then.
    public func needsInterrupt() -> Bool {
        guard wantsInterrupt() else { return false }
        counters.interrupt()
        return true
    }

    private func wantsInterrupt() -> Bool {
        guard let available, completedSinceInterrupt > 0 else { return false }
        completedSinceInterrupt = 0
        // The used index must be visible before the driver's request for interrupts is read, or both sides could sleep.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let previous = signalledUsed
        signalledUsed = nextUsed
        guard eventIndex else { return atomic16(available, 0).pointee.load(ordering: .relaxed) & 1 == 0 }
        let event = atomic16(available, 4 + 2 * Int(size)).pointee.load(ordering: .relaxed)
        guard let previous else { return true }
        return nextUsed &- event &- 1 < nextUsed &- previous
    }

    /// Asks the driver for a kick when it has added `count` chains. Without event indices `count` is always 1.
    ///
    /// - Returns: whether the driver has added them already. Then it may not kick, so the caller must check the queue again.
    public func armKick(after count: UInt16 = 1) -> Bool {
        guard broken == nil, let used, let available else { return false }
        var count = count
        if eventIndex {
            atomic16(used, 4 + 8 * Int(size)).pointee.store(nextAvailable &+ count &- 1, ordering: .relaxed)
        } else {
            atomic16(used, 0).pointee.store(0, ordering: .relaxed)
            count = 1
        }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return atomic16(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable >= count
    }

    /// Whether the driver has made a chain available that was not taken yet. Used for polling.
    public var isPending: Bool {
        guard broken == nil, let available else { return false }
        return atomic16(available, 2).pointee.load(ordering: .relaxed) != nextAvailable
    }

    /// Asks the driver not to kick while the device serves the queue anyway. With event indices, leaving the index unchanged
    /// has this effect.
    public func disarmKick() {
        guard !eventIndex, let used else { return }
        atomic16(used, 0).pointee.store(1, ordering: .relaxed)
    }
}
