import Glibc

/// A virtio memory balloon (virtio 1.2, 5.5): memory that the guest does not use goes back to the host.
///
/// It comes in two ways: as pages that the driver takes out of use, as many as the device asks for (the balloon), and as ranges of free
/// memory that the driver reports while they stay free (5.5.6.7). Either way the guest has said that it does not need what is in
/// them, and finds memory there when it uses them again. What lies outside of its memory is passed over or breaks the ring, so
/// a hostile guest can give away nothing but its own.
final class BalloonDevice: QueueDevice {
    /// 5.5.3.
    static let statisticsFeature: UInt64 = 1 << 1
    static let deflateOnOOMFeature: UInt64 = 1 << 2
    static let reportingFeature: UInt64 = 1 << 5
    static let pageSize = 4096

    /// What a queue is for. The device has those of them that the driver has agreed to (5.5.2).
    enum Role: Equatable {
        case inflate, deflate, statistics, reports
    }

    /// Page numbers that are looked at together.
    private static let numbersAtOnce = 1024
    /// Page numbers in one request; more are passed over. Linux sends 256.
    static let mostNumbers = 16 << 10
    /// Bytes that one report gives back; the rest stays. Linux reports 128 MiB.
    static let mostReported = 1 << 30

    /// Inflate, deflate, and up to two more.
    let queues = [Virtqueue(), Virtqueue(), Virtqueue(), Virtqueue()]
    /// Gives whole pages of the guest's memory back to the host; false: the host keeps them as they are.
    private let giveBack: (UnsafeMutableRawPointer, Int) -> Bool
    private let numbers = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: numbersAtOnce)

    /// Bytes that reports have given back so far.
    private(set) var reportedBytes: UInt64 = 0
    /// What the driver has told last.
    private(set) var statistics: BalloonStatistics?
    /// The driver's buffer for statistics is here; it gets it back when new ones are wanted (5.5.6.3).
    private(set) var hasStatisticsBuffer = false
    /// New statistics are wanted.
    var wantsStatistics = false

    /// - Parameter giveBack: gets whole pages.
    init(giveBack: @escaping (UnsafeMutableRawPointer, Int) -> Bool) { self.giveBack = giveBack }

    deinit { numbers.deallocate() }

    /// What a running queue is for.
    func role(of index: Int) -> Role? {
        let features = queues[index].features.rawValue
        var roles: [Role] = [.inflate, .deflate]
        if features & Self.statisticsFeature != 0 { roles.append(.statistics) }
        if features & Self.reportingFeature != 0 { roles.append(.reports) }
        return index < roles.count ? roles[index] : nil
    }

    func process(queue index: Int, interrupt: () -> Void) throws(QueueError) -> Bool {
        let queue = queues[index]
        switch role(of: index) {
        // One at a time: to give memory back takes its time.
        case .inflate:
            return try queue.serve(budget: 1, interrupt: interrupt) {
                inflate(queue)
                return 0
            }
        case .reports:
            return try queue.serve(budget: 1, interrupt: interrupt) {
                takeReport(queue.writable)
                return 0
            }
        case .statistics: return try takeStatistics(queue, interrupt)
        // A page comes back by being used.
        case .deflate, nil: return try queue.serve(budget: 8, interrupt: interrupt) { 0 }
        }
    }

    // MARK: Pages

    /// Takes the pages whose numbers are in the current chain.
    private func inflate(_ queue: Virtqueue) {
        guard let memory = queue.memory, let target = numbers.baseAddress else { return }
        var seen = 0
        while seen < Self.mostNumbers {
            let bytes = Vectors.copyOut(
                queue.readable, skip: seen * 4, to: target, count: Self.numbersAtOnce * 4)
            let count = bytes / 4
            if count == 0 { return }
            seen += count
            var part = UnsafeMutableBufferPointer(rebasing: numbers[..<count])
            for index in part.indices { part[index] = UInt32(littleEndian: part[index]) }
            part.sort()
            takePages(part, memory)
        }
    }

    /// - Parameter pages: their numbers, in order; those of neighbours become one range.
    private func takePages(_ pages: UnsafeMutableBufferPointer<UInt32>, _ memory: GuestMemory) {
        var first = 0
        while first < pages.count {
            var end = first + 1
            while end < pages.count, pages[end] - pages[end - 1] <= 1 { end += 1 }
            take(UInt64(pages[first])...UInt64(pages[end - 1]), memory)
            first = end
        }
    }

    private func take(_ pages: ClosedRange<UInt64>, _ memory: GuestMemory) {
        let size = UInt64(Self.pageSize)
        var address = pages.lowerBound * size
        let end = (pages.upperBound + 1) * size
        while address < end {
            guard let piece = memory.piece(at: address, atMost: end - address) else {
                address += size
                continue
            }
            _ = giveBackPages(piece.base, Int(piece.count))
            // Regions are whole pages; one that is not must not keep this from getting on.
            address += max(size, piece.count / size * size)
        }
    }

    /// Takes the ranges of free memory in the current chain.
    private func takeReport(_ ranges: UnsafeBufferPointer<iovec>) {
        var left = Self.mostReported
        for range in ranges where left > 0 {
            guard let base = range.iov_base else { continue }
            let count = min(left, range.iov_len)
            left -= count
            reportedBytes += UInt64(giveBackPages(base, count))
        }
    }

    /// Gives back the whole pages of a range.
    ///
    /// - Returns: bytes.
    private func giveBackPages(_ base: UnsafeMutableRawPointer, _ count: Int) -> Int {
        let size = Self.pageSize
        let skipped = -Int(bitPattern: base) & (size - 1)
        let whole = (count - skipped) / size * size
        guard whole > 0, giveBack(base + skipped, whole) else { return 0 }
        return whole
    }

    // MARK: Statistics

    /// Reads what the driver tells, and keeps its buffer until new statistics are wanted.
    private func takeStatistics(_ queue: Virtqueue, _ interrupt: () -> Void) throws(QueueError) -> Bool {
        guard queue.isRunning else { return false }
        if wantsStatistics, hasStatisticsBuffer {
            queue.complete(written: 0)
            hasStatisticsBuffer = false
            wantsStatistics = false
            if queue.needsInterrupt() { interrupt() }
        }
        if hasStatisticsBuffer { return false }
        repeat {
            guard try queue.next() else { continue }
            statistics = BalloonStatistics(queue.readable)
            hasStatisticsBuffer = true
            wantsStatistics = false
            _ = queue.armKick()
            return false
        } while queue.armKick()
        return false
    }

    /// To be called before a queue stops: one that is held goes back, to be taken again later.
    func prepareStop(queue index: Int) {
        guard hasStatisticsBuffer, role(of: index) == .statistics else { return }
        queues[index].putBack()
        hasStatisticsBuffer = false
    }
}

/// What a balloon's driver tells of the guest's memory, bytes; nil: it does not tell (virtio 1.2, 5.5.6.4).
public struct BalloonStatistics: Sendable, Equatable {
    /// VIRTIO_BALLOON_S_MEMFREE, _MEMTOT, _AVAIL, _CACHES.
    public var free: UInt64?
    public var total: UInt64?
    public var available: UInt64?
    public var caches: UInt64?
}

extension BalloonStatistics {
    /// A tag of 2 bytes, and a value of 8.
    private static let entrySize = 10
    /// Linux tells 16; what comes after so many is passed over.
    private static let mostEntries = 64

    /// - Parameter buffers: of the guest. What is no whole entry is passed over.
    init(_ buffers: UnsafeBufferPointer<iovec>) {
        var bytes = [UInt8](repeating: 0, count: Self.entrySize * Self.mostEntries)
        let count = Vectors.copyOut(buffers, to: &bytes, count: bytes.count)
        for index in 0..<count / Self.entrySize {
            let entry = bytes[index * Self.entrySize..<(index + 1) * Self.entrySize]
            func number(_ range: Range<Int>) -> UInt64 {
                entry.dropFirst(range.lowerBound).prefix(range.count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
            }
            let value = number(2..<10)
            switch number(0..<2) {
            case 4: free = value
            case 5: total = value
            case 6: available = value
            case 7: caches = value
            default: break
            }
        }
    }
}
