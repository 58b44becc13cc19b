import CLinux
import Glibc
import LinuxSystem

/// A request in progress.
final class BlockTransfer {
    enum Kind { case read, write, flush }

    fileprivate(set) var kind = Kind.flush
    fileprivate var chain: DetachedChain?
    /// Where the request's status goes, in the guest's memory.
    fileprivate var status: UnsafeMutableRawPointer?
    fileprivate var file: Int32 = -1
    /// In the file, and how many bytes there are and are done.
    fileprivate var offset = 0, count = 0, done = 0
    fileprivate var isDurable = false
    fileprivate var retries = 0
    /// A copy of the request's vectors, of which those from `first` on are not done.
    private var vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 4)
    private var capacity = 4
    private var first = 0, end = 0

    deinit { vectors.deallocate() }

    fileprivate var left: UnsafeBufferPointer<iovec> {
        UnsafeBufferPointer(start: vectors + first, count: end - first)
    }

    /// Copies the vectors of `count` bytes after the first `skip`.
    fileprivate func copy(_ buffers: UnsafeBufferPointer<iovec>, skip: Int, count: Int) {
        if buffers.count > capacity {
            vectors.deallocate()
            capacity = buffers.count
            vectors = .allocate(capacity: capacity)
        }
        first = 0
        end = Vectors.slice(buffers, skip: skip, count: count, to: vectors)
        self.count = count
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

    /// - Parameter writers: threads for small writes, where Linux would complete them elsewhere.
    init(_ ring: IORing, _ queue: Virtqueue, _ disk: BlockFile, writers count: Int) {
        (self.ring, self.queue, self.disk) = (ring, queue, disk)
        transfers = (0..<ring.capacity).map { _ in BlockTransfer() }
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
        post(tag, transfer)
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
        post(tag, transfer)
        return true
    }

    /// Adds the operation for what is left of a request to the ring.
    private func post(_ tag: Int, _ transfer: BlockTransfer) {
        unsubmittedBytes += transfer.count - transfer.done
        if transfer.kind == .flush { return ring.prepare(.flush, file: transfer.file, tag: UInt64(tag)) }
        let (left, isRead) = (transfer.left, transfer.kind == .read)
        if let writers, !isRead, !transfer.isDurable, transfer.count <= BlockWriters.largestWrite {
            return writers.begin(
                .init(tag: tag, file: transfer.file, vectors: left, offset: transfer.offset + transfer.done))
        }
        let isSingle = left.count == 1
        ring.prepare(
            isRead ? (isSingle ? .read : .readVector) : (isSingle ? .write : .writeVector), file: transfer.file,
            address: isSingle ? UnsafeRawPointer(left[0].iov_base) : UnsafeRawPointer(left.baseAddress),
            count: isSingle ? left[0].iov_len : left.count, offset: transfer.offset + transfer.done,
            isDurable: transfer.isDurable, tag: UInt64(tag))
    }

    /// Begins what was added to the ring.
    func submit() {
        unsubmittedBytes = 0
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
            ring.reap { tag, result in take(Int(tag), Int(result)) }
            if let writers { for (tag, result) in writers.take() { take(tag, result) } }
        } while ring.hasUnsubmitted
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

    private func take(_ tag: Int, _ result: Int) {
        let transfer = transfers[tag]
        if result == -Int(EINTR) || result == -Int(EAGAIN), transfer.retries < Self.maximumRetries {
            transfer.retries += 1
            return post(tag, transfer)
        }
        if transfer.kind == .flush { return complete(tag, transfer, isDone: result == 0) }
        if result > 0 {
            transfer.advance(result)
            // The rest, or why there is none.
            if transfer.done < transfer.count { return post(tag, transfer) }
        }
        complete(tag, transfer, isDone: transfer.done == transfer.count)
    }

    private func complete(_ tag: Int, _ transfer: BlockTransfer, isDone: Bool) {
        let status = isDone ? BlockStatus.done : .failed
        transfer.status?.storeBytes(of: status.rawValue, as: UInt8.self)
        let written = transfer.kind == .read ? transfer.done : 0
        if let chain = transfer.chain { queue.complete(chain, written: UInt32(written) + 1) }
        (transfer.chain, transfer.status) = (nil, nil)
        bytes -= transfer.count
        free.append(tag)
    }
}
