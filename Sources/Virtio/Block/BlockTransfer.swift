import CLinux
import Glibc
import LinuxSystem

/// A request in progress.
final class BlockTransfer {
    enum Kind { case read, write, flush }

    /// Most bytes and vectors of an operation that performs several requests. It is done when the last of them is.
    private static let maximumRun = 1 << 20
    private static let maximumVectors = 512

    fileprivate(set) var kind = Kind.flush
    fileprivate var chain: DetachedChain?
    /// Where the request's status goes, in the guest's memory.
    fileprivate var status: UnsafeMutableRawPointer?
    fileprivate var file: Int32 = -1
    /// In the file, and how many bytes there are and are done.
    fileprivate var offset = 0, count = 0, done = 0
    fileprivate var isDurable = false
    fileprivate var retries = 0
    /// Requests that the same operation performs, in the order of their places: each begins where the one before it ends.
    fileprivate private(set) var followers: [BlockTransfer] = []
    /// A copy of the request's vectors, of which those from `first` on are not done; behind `end` those of its followers.
    private var vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 4)
    private var capacity = 4
    private var first = 0, end = 0, followersEnd = 0
    /// Of the request and its followers.
    private var runCount = 0

    /// Its index among the queue's.
    fileprivate let tag: Int

    fileprivate init(tag: Int) { self.tag = tag }

    deinit { vectors.deallocate() }

    fileprivate var left: UnsafeBufferPointer<iovec> {
        UnsafeBufferPointer(start: vectors + first, count: followersEnd - first)
    }

    /// What its operation moves, bytes.
    fileprivate var leftCount: Int { runCount - done }

    /// Takes a request into this one's operation, which has not begun, where it goes on where this one ends.
    ///
    /// - Returns: false where it does not, or the operation would become too large.
    fileprivate func take(_ next: BlockTransfer) -> Bool {
        guard next.kind == kind, next.file == file, next.isDurable == isDurable, next.offset == offset + runCount,
            next.retries == 0, next.done == 0, retries == 0, done == 0,
            runCount + next.count <= Self.maximumRun,
            followersEnd + next.left.count <= Self.maximumVectors
        else { return false }
        reserve(followersEnd + next.left.count)
        for vector in next.left {
            vectors[followersEnd] = vector
            followersEnd += 1
        }
        runCount += next.count
        followers.append(next)
        return true
    }

    /// Lets the followers go, of which each needs an operation of its own.
    fileprivate func releaseFollowers() -> [BlockTransfer] {
        (followersEnd, runCount) = (end, count)
        defer { followers.removeAll(keepingCapacity: true) }
        return followers
    }

    private func reserve(_ count: Int) {
        if count <= capacity { return }
        let larger = UnsafeMutablePointer<iovec>.allocate(capacity: count * 2)
        larger.moveInitialize(from: vectors, count: followersEnd)
        vectors.deallocate()
        (vectors, capacity) = (larger, count * 2)
    }

    /// Copies the vectors of `count` bytes after the first `skip`.
    fileprivate func copy(_ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int) {
        (first, followersEnd) = (0, 0)
        reserve(buffers.count)
        end = Vectors.slice(buffers, skip: skip, count: count, to: vectors)
        followersEnd = end
        (self.count, runCount) = (count, count)
        done = 0
        retries = 0
    }

    /// `moved` more bytes are done.
    fileprivate func advance(_ moved: Int) {
        done += moved
        var moved = moved
        while moved > 0, first < end {
            let step = min(moved, vectors[first].iov_len)
            moved -= step
            if step == vectors[first].iov_len {
                first += 1
            } else if let base = vectors[first].iov_base {
                vectors[first] = iovec(iov_base: base + step, iov_len: vectors[first].iov_len - step)
            }
        }
    }
}

/// The requests of one queue that are performed meanwhile: by the kernel, by a ring of the queue's own, and small writes to files by
/// threads.
///
/// All that a request needs of the guest's memory was read and checked before it begins: only its data, and at its end its status,
/// are touched later. The memory stays mapped because the queue is stopped after `finish` only.
final class BlockTransfers {
    /// Bytes in progress at which no more requests are taken, so that a stop need not wait for long.
    private static let maximumBytes = 16 << 20
    /// How often the kernel may ask for an operation to be repeated.
    private static let maximumRetries = 64

    private let ring: IORing
    /// nil: the ring does all.
    private let writers: BlockWriters?
    /// Readable when a request is done, by whomever.
    private let events: SharedDescriptor?
    private let queue: Virtqueue
    private let disk: BlockFile
    /// By their tags.
    private let transfers: [BlockTransfer]
    private var free: [Int]
    private var bytes = 0
    /// Bytes of the operations that `submit` will begin.
    private(set) var unsubmittedBytes = 0
    /// The request whose operation is not in the ring yet: those that come may go along.
    private var leader: BlockTransfer?

    /// - Parameter writers: threads for small writes, where Linux would complete them elsewhere.
    init(_ ring: IORing, _ queue: Virtqueue, _ disk: BlockFile, writers count: Int) {
        (self.ring, self.queue, self.disk) = (ring, queue, disk)
        transfers = (0..<ring.capacity).map(BlockTransfer.init(tag:))
        free = Array((0..<ring.capacity).reversed())
        let writers = disk.completesWritesElsewhere ? try? BlockWriters(threads: count) : nil
        let events = writers.flatMap { try? Self.watch([ring.descriptor, $0.descriptor]) }
        self.writers = events == nil ? nil : writers
        self.events = events
    }

    deinit {
        finish()
        writers?.end()
    }

    /// A descriptor that is readable when one of these is.
    private static func watch(_ descriptors: [Int32]) throws(SystemError) -> SharedDescriptor {
        let events = SharedDescriptor(
            OwnedDescriptor(owning: try check("epoll_create1", "", epoll_create1(Int32(EPOLL_CLOEXEC)))))
        for descriptor in descriptors {
            var event = epoll_event()
            event.events = EPOLLIN.rawValue
            try check("epoll_ctl", "disk", epoll_ctl(events.raw, EPOLL_CTL_ADD, descriptor, &event))
        }
        return events
    }

    /// Readable when a request is done.
    var descriptor: Int32 { events?.raw ?? ring.descriptor }
    /// Whether another request may begin.
    var hasRoom: Bool { !free.isEmpty && bytes < Self.maximumBytes }
    /// Whether a request is done that `collect` has not completed.
    var hasCompletions: Bool { ring.hasCompletions || writers?.hasCompletions ?? false }
    /// No request is in progress.
    var isIdle: Bool { free.count == transfers.count }

    /// Has the current chain's data read or written by the next `submit`.
    ///
    /// - Parameters:
    ///   - buffers: of which the data are the `count` bytes after the first `skip`.
    ///   - place: of the data in a file.
    ///   - status: where the request's status goes.
    ///   - isDurable: a write is done when it is on stable storage.
    /// - Returns: false when the request can't be performed so; nothing is done then.
    func begin(
        _ kind: BlockTransfer.Kind, _ buffers: UnsafeBufferPointer<iovec>, skip: Int = 0, count: Int,
        at place: (file: Int32, offset: Int), status: UnsafeMutableRawPointer, isDurable: Bool = false
    ) -> Bool {
        guard let tag = free.last else { return false }
        let transfer = transfers[tag]
        transfer.copy(buffers, skip: skip, count: count)
        guard disk.takes(transfer.left), let chain = queue.detach() else { return false }
        free.removeLast()
        (transfer.kind, transfer.chain, transfer.status) = (kind, chain, status)
        (transfer.file, transfer.offset, transfer.isDurable) = (place.file, place.offset, isDurable)
        bytes += count
        post(transfer)
        return true
    }

    /// Has the disk flushed by the next `submit`, for the current chain.
    func beginFlush(status: UnsafeMutableRawPointer) -> Bool {
        guard let tag = free.last, let chain = queue.detach() else { return false }
        free.removeLast()
        let transfer = transfers[tag]
        transfer.copy(UnsafeBufferPointer(start: nil, count: 0), skip: 0, count: 0)
        (transfer.kind, transfer.chain, transfer.status) = (.flush, chain, status)
        transfer.file = disk.descriptor
        post(transfer)
        return true
    }

    /// Has what is left of a request performed by the next `submit`.
    private func post(_ transfer: BlockTransfer) {
        unsubmittedBytes += transfer.leftCount
        if transfer.kind != .flush, let leader, leader.take(transfer) { return }
        beginLeader()
        if transfer.kind == .flush { return ring.prepare(.flush, file: transfer.file, tag: UInt64(transfer.tag)) }
        leader = transfer
    }

    /// Adds the operation of the leader and its followers to the ring, or has it performed by the writers.
    private func beginLeader() {
        guard let transfer = leader else { return }
        leader = nil
        let (left, isRead) = (transfer.left, transfer.kind == .read)
        if let writers, !isRead, !transfer.isDurable, transfer.leftCount <= BlockWriters.largestWrite {
            return writers.begin(
                .init(
                    tag: transfer.tag, file: transfer.file, vectors: left, offset: transfer.offset + transfer.done))
        }
        let isSingle = left.count == 1
        ring.prepare(
            isRead ? (isSingle ? .read : .readVector) : (isSingle ? .write : .writeVector), file: transfer.file,
            address: isSingle ? UnsafeRawPointer(left[0].iov_base) : UnsafeRawPointer(left.baseAddress),
            count: isSingle ? left[0].iov_len : left.count, offset: transfer.offset + transfer.done,
            isDurable: transfer.isDurable, tag: UInt64(transfer.tag))
    }

    /// Begins what was added to the ring.
    func submit() {
        unsubmittedBytes = 0
        beginLeader()
        guard ring.hasUnsubmitted else { return }
        do { try ring.submit() } catch {
            // The kernel may still use the guest's memory, and nobody would say when it no longer does.
            endProcess("disk: \(error)")
        }
    }

    /// Completes the requests that are done.
    ///
    /// - Returns: whether there were any.
    func collect() -> Bool {
        let before = free.count
        repeat {
            submit()
            ring.reap { tag, result in take(transfers[Int(tag)], Int(result)) }
            if let writers { for (tag, result) in writers.take() { take(transfers[tag], result) } }
        } while ring.hasUnsubmitted || leader != nil
        return free.count > before
    }

    /// Waits for all requests in progress, and completes them.
    func finish() {
        while !isIdle {
            submit()
            if !hasCompletions {
                var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                poll(&item, 1, -1)
            }
            _ = collect()
        }
    }

    private func take(_ transfer: BlockTransfer, _ result: Int) {
        if !transfer.followers.isEmpty {
            let isDone = result == transfer.leftCount
            for one in [transfer] + transfer.releaseFollowers() {
                if isDone {
                    one.advance(one.count)
                    complete(one, isDone: true)
                } else {
                    // Each by itself, which tells which of them fails.
                    one.retries += 1
                    post(one)
                }
            }
            return
        }
        if result == -Int(EINTR) || result == -Int(EAGAIN), transfer.retries < Self.maximumRetries {
            transfer.retries += 1
            return post(transfer)
        }
        if transfer.kind == .flush { return complete(transfer, isDone: result == 0) }
        if result > 0 {
            transfer.advance(result)
            // The rest, or why there is none.
            if transfer.done < transfer.count { return post(transfer) }
        }
        complete(transfer, isDone: transfer.done == transfer.count)
    }

    private func complete(_ transfer: BlockTransfer, isDone: Bool) {
        let status = isDone ? BlockStatus.done : .failed
        transfer.status?.storeBytes(of: status.rawValue, as: UInt8.self)
        let written = transfer.kind == .read ? transfer.done : 0
        if let chain = transfer.chain { queue.complete(chain, written: UInt32(written) + 1) }
        (transfer.chain, transfer.status) = (nil, nil)
        bytes -= transfer.count
        free.append(transfer.tag)
    }
}
