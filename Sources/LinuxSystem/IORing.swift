import CLinux
import Glibc
import Synchronization

/// A queue of reads, writes and flushes that the kernel performs meanwhile (io_uring(7)).
///
/// It takes these operations and no others, whoever has its descriptor or writes its memory: the kernel is told so before the ring
/// is enabled. It can't be handed to another process. A ring belongs to one thread at a time.
public final class IORing: @unchecked Sendable {
    /// What can be asked for.
    public enum Operation: Sendable, CaseIterable {
        /// One buffer.
        case read, write
        /// An array of iovec.
        case readVector, writeVector
        /// fdatasync(2).
        case flush

        fileprivate var code: UInt8 {
            switch self {
            case .read: martlet_ring_read
            case .write: martlet_ring_write
            case .readVector: martlet_ring_readv
            case .writeVector: martlet_ring_writev
            case .flush: martlet_ring_fsync
            }
        }
    }

    /// A ring's completion queue has twice as many entries: so many operations may be in progress.
    public let capacity: Int
    private let ring: OwnedDescriptor
    private let queues: Mapping
    private let entries: Mapping
    private let layout: martlet_ring_layout
    /// The index of the next entry, and how many before it the kernel has not taken.
    private var tail: UInt32 = 0
    private var unsubmitted: UInt32 = 0

    /// - Parameter capacity: a power of two.
    /// - Throws: `SystemError` where the host has no io_uring (ENOSYS) or does not allow it (EPERM).
    public init(capacity: Int) throws(SystemError) {
        var layout = martlet_ring_layout()
        let codes = Operation.allCases.map(\.code)
        ring = OwnedDescriptor(
            owning: try check(
                "io_uring_setup", "", martlet_ring_setup(UInt32(capacity), codes, UInt32(codes.count), &layout)))
        queues = try Mapping(file: ring.raw, count: Int(layout.queues_size))
        entries = try Mapping(file: ring.raw, offset: martlet_ring_entries_offset, count: Int(layout.entries_size))
        self.layout = layout
        self.capacity = Int(layout.submissions)
        // Entry i of the array names entry i, for good.
        let array = (queues.base + Int(layout.submission_array)).assumingMemoryBound(to: UInt32.self)
        for index in 0..<Int(layout.submissions) { array[index] = UInt32(index) }
    }

    /// To be waited for: it is readable when an operation has been completed that `reap` has not returned.
    public var descriptor: Int32 { ring.raw }

    private func atomic(_ offset: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (queues.base + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Adds an operation, which begins with the next `submit`. No more than `capacity` may be in progress.
    ///
    /// - Parameters:
    ///   - address: of the buffer, or of the array of iovec; both must stay until the operation has begun, the buffers until it is
    ///     completed.
    ///   - count: bytes of the buffer, or length of the array.
    ///   - offset: in the file, bytes.
    ///   - isDurable: a write is completed when what it wrote is on stable storage.
    ///   - tag: what `reap` calls the operation.
    public func prepare(
        _ operation: Operation, file: Int32, address: UnsafeRawPointer? = nil, count: Int = 0, offset: Int = 0,
        isDurable: Bool = false, tag: UInt64
    ) {
        precondition(Int(unsubmitted) < capacity, "more operations than the ring has entries")
        let flags = operation == .flush ? martlet_FSYNC_DATASYNC : isDurable ? martlet_RWF_DSYNC : 0
        let index = Int(tail & (layout.submissions - 1))
        martlet_ring_prepare(
            entries.base + index * Int(martlet_ring_entry_size), operation.code, file, address, UInt32(count),
            UInt64(offset), flags, tag)
        tail &+= 1
        unsubmitted += 1
    }

    /// Whether `prepare` has added operations that have not begun.
    public var hasUnsubmitted: Bool { unsubmitted > 0 }

    /// Begins the operations that `prepare` has added.
    ///
    /// - Parameter minimum: waits until so many operations are completed.
    /// - Throws: `SystemError` when the ring can't be used.
    public func submit(waitFor minimum: Int = 0) throws(SystemError) {
        atomic(layout.submission_tail).pointee.store(tail, ordering: .releasing)
        while unsubmitted > 0 || minimum > 0 {
            let taken = martlet_ring_enter(ring.raw, unsubmitted, UInt32(minimum))
            if taken >= 0 {
                unsubmitted -= UInt32(taken)
                if minimum > 0 { return }
            } else if Glibc.errno == EAGAIN || Glibc.errno == EBUSY {
                // The kernel lacks memory for the moment.
                sched_yield()
            } else if Glibc.errno != EINTR {
                throw SystemError.last("io_uring_enter")
            }
            if minimum > 0, hasCompletions { return }
        }
    }

    /// Whether an operation has been completed that `reap` has not returned. Costs no system call.
    public var hasCompletions: Bool {
        atomic(layout.completion_head).pointee.load(ordering: .relaxed)
            != atomic(layout.completion_tail).pointee.load(ordering: .acquiring)
    }

    /// Calls `body` with the tag and the result of each completed operation: the number of bytes, 0 for a flush, or a negative
    /// errno. `body` may call `prepare`.
    public func reap(_ body: (_ tag: UInt64, _ result: Int32) -> Void) {
        var head = atomic(layout.completion_head).pointee.load(ordering: .relaxed)
        while head != atomic(layout.completion_tail).pointee.load(ordering: .acquiring) {
            let index = Int(head & (layout.completions - 1))
            var tag: UInt64 = 0
            let result = martlet_ring_completion(
                queues.base + Int(layout.completion_entries) + index * Int(martlet_ring_completion_size), &tag)
            head &+= 1
            atomic(layout.completion_head).pointee.store(head, ordering: .releasing)
            body(tag, result)
        }
    }
}
