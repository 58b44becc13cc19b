import Glibc
import Synchronization

/// The device side of one split virtqueue (virtio 1.2, 2.7).
///
/// Geometry and negotiated features are fixed from `start` to `stop`. The driver's memory is hostile: each index and
/// descriptor is read once, checked, and never read again; what does not pass breaks the queue until it starts anew.
/// One chain is held at a time: `next`, look at `readable` and `writable`, then `complete` or `putBack`.
/// Belongs to one thread.
public final class Virtqueue {
    /// The most descriptors a chain may have, and the most that readv(2) takes.
    public static let maximumChain = 1024

    /// The most entries the driver may choose.
    public let maximumSize: UInt16

    // Fixed while the queue runs. Pointers were checked against `memory`, which keeps the mapping alive.
    var memory: GuestMemory?
    var size: UInt16 = 0
    var descriptors: UnsafeMutableRawPointer?
    var available: UnsafeMutableRawPointer?
    var used: UnsafeMutableRawPointer?
    /// All that was negotiated, the device's own features among it.
    public private(set) var features: RingFeatures = []
    private var eventIndex = false
    var indirect = false

    // Progress, in free-running 16-bit indices.
    var nextAvailable: UInt16 = 0
    var nextUsed: UInt16 = 0
    private var signalledUsed: UInt16?
    /// Chains completed since `needsInterrupt` was last asked.
    var unannounced: UInt16 = 0
    private var held: UInt16?
    /// Why the queue no longer runs, when its driver broke it.
    public internal(set) var broken: QueueError?
    /// Chains that are held together; see `gather`.
    var gathered: ContiguousArray<GatheredChain> = []

    // The held chain, or all that are gathered.
    let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: maximumChain)
    var readableCount = 0
    var vectorCount = 0
    var inWritablePart = false
    /// Bytes of the held chain that the device may read, and may write.
    public internal(set) var readableBytes: UInt32 = 0, writableBytes: UInt32 = 0

    public init(maximumSize: UInt16 = 1024) { self.maximumSize = maximumSize }

    deinit { vectors.deallocate() }

    public var isRunning: Bool { used != nil && broken == nil }

    /// The index of the available entry taken next: what vhost-user calls the ring's base.
    public var position: UInt16 { nextAvailable }

    /// Checks the geometry and takes up work at `position`; the used index goes on from what the ring says.
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
        nextUsed = word(parts.used, 2).pointee.load(ordering: .acquiring)
        signalledUsed = nil
        unannounced = 0
    }

    /// Lets go of the rings. What was taken and not completed is lost, as on a reset.
    public func stop() {
        nextAvailable &-= UInt16(truncatingIfNeeded: gathered.count)
        gathered.removeAll(keepingCapacity: true)
        memory = nil
        descriptors = nil
        available = nil
        used = nil
        held = nil
        broken = nil
        forgetChain()
    }

    @inline(__always)
    func word(_ base: UnsafeMutableRawPointer, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt16>> {
        (base + offset).assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    // MARK: Chains

    /// Takes the next chain that the driver made available; false when there is none.
    public func next() throws(QueueError) -> Bool {
        if let broken { throw broken }
        guard let available else { throw .stopped }
        let ahead = word(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable
        if ahead == 0 { return false }
        do throws(QueueError) {
            guard ahead <= size else { throw .availableIndexAhead(by: ahead, size: size) }
            let slot = Int(nextAvailable & (size &- 1))
            let head = word(available, 4 + 2 * slot).pointee.load(ordering: .relaxed)
            guard head < size else { throw .headBeyondTable(head) }
            forgetChain()
            try walk(head)
            nextAvailable &+= 1
            held = head
            return true
        } catch {
            forgetChain()
            broken = error
            throw error
        }
    }

    /// Gives the held chain back to the driver with `written` bytes in it.
    public func complete(written: UInt32) {
        guard let held, let used else { return }
        let element = used + 4 + 8 * Int(nextUsed & (size &- 1))
        element.storeBytes(of: UInt32(held), as: UInt32.self)
        (element + 4).storeBytes(of: min(written, writableBytes), as: UInt32.self)
        nextUsed &+= 1
        word(used, 2).pointee.store(nextUsed, ordering: .releasing)
        unannounced &+= 1
        self.held = nil
        forgetChain()
    }

    /// Leaves the held chain where it was: `next` will take it again.
    public func putBack() {
        guard held != nil else { return }
        nextAvailable &-= 1
        held = nil
        forgetChain()
    }

    /// The held chain's buffers that the device may read. Valid until it is completed or put back.
    public var readable: UnsafeBufferPointer<iovec> { UnsafeBufferPointer(start: vectors, count: readableCount) }

    /// The held chain's buffers that the device may write. Valid until it is completed or put back.
    public var writable: UnsafeBufferPointer<iovec> {
        UnsafeBufferPointer(start: vectors + readableCount, count: vectorCount - readableCount)
    }

    private func forgetChain() {
        readableCount = 0
        vectorCount = 0
        inWritablePart = false
        readableBytes = 0
        writableBytes = 0
    }

    // MARK: Notifications (virtio 1.2, 2.7.7 and 2.7.10)

    /// Whether the driver wants an interrupt for what was completed since this was last asked.
    public func needsInterrupt() -> Bool {
        guard let available, unannounced > 0 else { return false }
        unannounced = 0
        // The used index must be out before the driver's wish is read, or both sides go to sleep.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let previous = signalledUsed
        signalledUsed = nextUsed
        guard eventIndex else { return word(available, 0).pointee.load(ordering: .relaxed) & 1 == 0 }
        let event = word(available, 4 + 2 * Int(size)).pointee.load(ordering: .relaxed)
        guard let previous else { return true }
        return nextUsed &- event &- 1 < nextUsed &- previous
    }

    /// Asks the driver for a kick when `count` more chains are there (1: at the next one; without event indices always
    /// so). True when they came in the meantime: look again before sleeping.
    public func armKick(after count: UInt16 = 1) -> Bool {
        guard broken == nil, let used, let available else { return false }
        var count = count
        if eventIndex {
            word(used, 4 + 8 * Int(size)).pointee.store(nextAvailable &+ count &- 1, ordering: .relaxed)
        } else {
            word(used, 0).pointee.store(0, ordering: .relaxed)
            count = 1
        }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return word(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable >= count
    }

    /// Whether the driver has made a chain available that was not taken yet: for looking now and then instead of waiting
    /// for a kick.
    public var isPending: Bool {
        guard broken == nil, let available else { return false }
        return word(available, 2).pointee.load(ordering: .relaxed) != nextAvailable
    }

    /// Spares the driver kicks while the device looks by itself. (With event indices, not moving the index does that.)
    public func disarmKick() {
        guard !eventIndex, let used else { return }
        word(used, 0).pointee.store(1, ordering: .relaxed)
    }
}
