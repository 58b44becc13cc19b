import Glibc
import LinuxSystem

/// What a request asks for, which was checked: it lies on the disk and has the right form.
enum BlockRequest {
    /// Bytes on the disk.
    case read(offset: Int, count: Int)
    case write(offset: Int, count: Int)
    case flush
    case identify
    /// `count` ranges are to be discarded, or filled with zeroes.
    case discard(count: Int)
    case writeZeroes(count: Int)
    /// It is not to be performed.
    case refused(BlockStatus)
}

/// One queue of a disk. It belongs to one thread.
///
/// With a ring the kernel performs reads, writes and flushes meanwhile, so that several of the queue's requests are in progress and
/// are completed in any order. Without one, each request is performed before the next is taken.
final class BlockQueue {
    /// Requests taken before the queue may be stopped.
    private static let budget = 16
    /// Requests without a second one in progress, after which the driver is taken to wait for each.
    private static let enoughAlone = 16
    /// Bytes that are submitted at once. What is in the page cache is copied then.
    private static let batch = 1 << 20
    private static let cachedBatch = 256 << 10

    let queue: Virtqueue
    private let file: BlockFile
    private let isReadOnly: Bool
    private let id: [UInt8]
    private let scratch = BlockScratch()
    /// The ranges of the current request, as they were checked.
    private let ranges = UnsafeMutableBufferPointer<BlockRange>.allocate(capacity: BlockLimits.discardRanges)
    private let transfers: BlockTransfers?
    /// How many requests in a row came while no other was in progress, up to `enoughAlone`.
    private var alone = 0

    /// - Parameters:
    ///   - id: the disk's serial number, of `BlockDevice.idSize` bytes.
    ///   - ring: of the queue's own; nil: there is none.
    ///   - writers: threads for small writes.
    init(_ queue: Virtqueue, _ file: BlockFile, readOnly: Bool, id: [UInt8], ring: IORing?, writers: Int) {
        (self.queue, self.file, self.id) = (queue, file, id)
        isReadOnly = readOnly
        transfers = ring.map { BlockTransfers($0, queue, file, writers: writers) }
        ranges.initialize(repeating: BlockRange())
    }

    deinit { ranges.deallocate() }

    /// Readable when a request is done; nil: there is no ring.
    var source: Int32? { transfers?.descriptor }

    /// Whether there is something to serve. A queue with as much in progress as it may have takes no more requests.
    var isPending: Bool {
        guard let transfers else { return queue.isPending }
        return transfers.hasCompletions || transfers.hasRoom && queue.isPending
    }

    /// Asks the driver for a kick, unless no more requests can be taken anyway.
    ///
    /// - Returns: whether there is something to serve already.
    func arm() -> Bool {
        guard let transfers else { return queue.armKick() }
        guard transfers.hasRoom else { return transfers.hasCompletions }
        return queue.armKick() || transfers.hasCompletions
    }

    /// Waits for the requests in progress, and completes them.
    func finish() { transfers?.finish() }

    /// Serves the queue as `ThreadedDevice.serve` does.
    func serve(interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        guard let transfers else {
            return try queue.serveWithoutKick(budget: Self.budget, interrupt: interrupt) { serveRequest() }
        }
        var isDone = collect(transfers, interrupt)
        guard queue.isRunning else { return isDone ? .done : .nothing }
        queue.disarmKick()
        var taken = 0
        do throws(QueueError) {
            while taken < Self.budget, transfers.hasRoom, try queue.next() {
                taken += 1
                begin(transfers, interrupt)
                if transfers.unsubmittedBytes >= (file.isDirect ? Self.batch : Self.cachedBatch),
                    collect(transfers, interrupt)
                {
                    isDone = true
                }
            }
        } catch {
            _ = collect(transfers, interrupt)
            throw error
        }
        if taken > 0, collect(transfers, interrupt) { isDone = true }
        return taken == Self.budget ? .more : taken > 0 || isDone ? .done : .nothing
    }

    /// Begins what was added, completes what is done, and interrupts the driver if it wants that.
    private func collect(_ transfers: BlockTransfers, _ interrupt: () -> Void) -> Bool {
        let isDone = transfers.collect()
        if queue.needsInterrupt() { interrupt() }
        return isDone
    }

    // MARK: The current request

    /// Where the current request's status goes; nil: it has no room for one.
    private var status: UnsafeMutableRawPointer? {
        guard let last = queue.writable.last, let base = last.iov_base else { return nil }
        return base + last.iov_len - 1
    }

    /// Begins the current request, or performs it where that takes no time or can't be done otherwise.
    private func begin(_ transfers: BlockTransfers, _ interrupt: () -> Void) {
        guard let status else { return queue.complete(written: 0) }
        let request = check()
        alone = transfers.isIdle && !queue.isPending ? min(alone + 1, Self.enoughAlone) : 0
        switch request {
        case .read where alone == Self.enoughAlone, .write where alone == Self.enoughAlone:
            // A driver with one request at a time has it done sooner without the ring, which costs more system calls and, where
            // a file system completes a direct write, a change of threads.
            queue.complete(written: perform(request, status))
            if queue.isPending { alone = 0 }
            if queue.needsInterrupt() { interrupt() }
            return
        case .read(let offset, let count) where count > 0:
            if let place = file.place(offset, count: count),
                transfers.begin(.read, queue.writable, count: count, at: place, status: status)
            {
                return
            }
        case .write(let offset, let count) where count > 0 && file.isDirect:
            // One that goes to the page cache is a copy, for which the kernel would start a thread.
            if transfers.begin(
                .write, queue.readable, skip: BlockHeader.size, count: count, at: (file.descriptor, offset),
                status: status, isDurable: !isFlushNegotiated)
            {
                return
            }
        case .flush:
            if transfers.beginFlush(status: status) { return }
        case .discard, .writeZeroes:
            // The kernel has these wait for reads and writes of the file, of which some may wait for this thread.
            transfers.finish()
        default: break
        }
        queue.complete(written: perform(request, status))
    }

    /// Serves the current request.
    ///
    /// - Returns: the number of bytes written: the data and the status.
    private func serveRequest() -> UInt32 {
        guard let status else { return 0 }
        return perform(check(), status)
    }

    /// Performs the current request.
    ///
    /// - Returns: the number of bytes written: the data and the status.
    private func perform(_ request: BlockRequest, _ place: UnsafeMutableRawPointer) -> UInt32 {
        var data: UInt32 = 0
        let status = perform(request, &data)
        place.storeBytes(of: status.rawValue, as: UInt8.self)
        return data + 1
    }

    /// Performs the current request. `written` is set to the number of data bytes written to the guest.
    private func perform(_ request: BlockRequest, _ written: inout UInt32) -> BlockStatus {
        switch request {
        case .read(let offset, let count):
            let done = file.read(queue.writable, count: count, at: offset, scratch)
            written = UInt32(done)
            return done == count ? .done : .failed
        case .write(let offset, let count):
            guard file.write(queue.readable, skip: BlockHeader.size, count: count, at: offset, scratch) else {
                return .failed
            }
            return completeWrite()
        case .flush: return file.flush() ? .done : .failed
        case .identify:
            written = UInt32(Vectors.copyIn(id, count: BlockDevice.idSize, to: queue.writable))
            return .done
        case .discard(let count):
            return forEachRange(count) { offset, bytes, _ in file.discard(offset, count: bytes) }
        case .writeZeroes(let count):
            return forEachRange(count) { file.zero($0, count: $1, mayUnmap: $2) }
        case .refused(let status): return status
        }
    }

    /// Calls `body` with the offset and length in bytes of each checked range, and whether it may be unmapped.
    private func forEachRange(_ count: Int, _ body: (Int, Int, Bool) -> Bool) -> BlockStatus {
        for range in ranges.prefix(count) where range.sectors != 0 {
            let offset = Int(UInt64(littleEndian: range.sector)) * BlockFile.sectorSize
            let bytes = Int(UInt32(littleEndian: range.sectors)) * BlockFile.sectorSize
            guard body(offset, bytes, range.flags != 0) else { return .failed }
        }
        return completeWrite()
    }

    private var isFlushNegotiated: Bool { queue.features.rawValue & BlockFeature.flush != 0 }

    /// Flushes for a driver that can't: it expects a completed write to be on stable storage (virtio 1.2, 5.2.6.2).
    private func completeWrite() -> BlockStatus { isFlushNegotiated || file.flush() ? .done : .failed }

    // MARK: Checks

    /// Reads and checks all of the current request but its data. Nothing of it is read again.
    private func check() -> BlockRequest {
        var header = BlockHeader()
        let size = BlockHeader.size
        guard Vectors.copyOut(queue.readable, to: &header, count: size) == size else { return .refused(.failed) }
        let readable = Int(queue.readableBytes) - size
        let writable = Int(queue.writableBytes) - 1
        switch BlockOperation(rawValue: UInt32(littleEndian: header.type)) {
        case .read:
            guard readable == 0, let offset = offset(header, writable) else { return .refused(.failed) }
            return .read(offset: offset, count: writable)
        case .write:
            guard !isReadOnly, writable == 0, let offset = offset(header, readable) else { return .refused(.failed) }
            return .write(offset: offset, count: readable)
        case .flush: return readable == 0 && writable == 0 ? .flush : .refused(.failed)
        case .identify: return readable == 0 && writable >= BlockDevice.idSize ? .identify : .refused(.failed)
        case .discard:
            guard !isReadOnly, writable == 0 else { return .refused(.failed) }
            return checkRanges(readable, isDiscard: true)
        case .writeZeroes:
            guard !isReadOnly, writable == 0 else { return .refused(.failed) }
            return checkRanges(readable, isDiscard: false)
        case nil: return .refused(.unsupported)
        }
    }

    /// The offset of a request's data on the disk; nil when it is not all on the disk, not whole sectors, or too long.
    private func offset(_ header: BlockHeader, _ count: Int) -> Int? {
        let sector = UInt64(littleEndian: header.sector)
        guard count % BlockFile.sectorSize == 0, count <= BlockLimits.data,
            file.contains(sector, count: UInt64(count / BlockFile.sectorSize))
        else { return nil }
        return Int(sector) * BlockFile.sectorSize
    }

    /// Copies the ranges of the current request, `length` bytes, to `ranges` and checks all of them.
    private func checkRanges(_ length: Int, isDiscard: Bool) -> BlockRequest {
        let feature = isDiscard ? BlockFeature.discard : BlockFeature.writeZeroes
        guard queue.features.rawValue & feature != 0 else { return .refused(.unsupported) }
        let count = length / BlockRange.size
        guard count > 0, count <= (isDiscard ? BlockLimits.discardRanges : BlockLimits.zeroRanges),
            length % BlockRange.size == 0, let base = ranges.baseAddress
        else { return .refused(.failed) }
        _ = Vectors.copyOut(queue.readable, skip: BlockHeader.size, to: base, count: length)
        let knownFlags = isDiscard ? 0 : BlockRange.unmap
        for range in ranges.prefix(count) where UInt32(littleEndian: range.flags) & ~knownFlags != 0 {
            return .refused(.unsupported)
        }
        let limit = isDiscard ? BlockLimits.discardSectors : BlockLimits.zeroSectors
        for range in ranges.prefix(count) {
            let sectors = UInt32(littleEndian: range.sectors)
            guard sectors <= limit, file.contains(UInt64(littleEndian: range.sector), count: UInt64(sectors))
            else { return .refused(.failed) }
        }
        return isDiscard ? .discard(count: count) : .writeZeroes(count: count)
    }
}
