import Glibc
import LinuxSystem

/// A virtio block device with one queue (virtio 1.2, 5.2): a raw file as the guest's disk.
///
/// A request is taken as it comes, over however many descriptors: header, data, and the status as the last byte that
/// the device may write. What is wrong with it is said in the status; a request without one is given back undone.
/// Belongs to one thread.
final class BlockDevice: ThreadedDevice, @unchecked Sendable {
    /// Requests served from the queue before it may be stopped.
    private static let budget = 16
    /// Bytes of the name that GET_ID asks for.
    static let idSize = 20

    let queues = [Virtqueue()]
    /// The feature bits offered.
    let features: UInt64
    /// The configuration space.
    let configuration: [UInt8]
    private let queue: Virtqueue
    private let file: BlockFile
    private let isReadOnly: Bool
    private let id: [UInt8]
    private let ranges = UnsafeMutableBufferPointer<BlockRange>.allocate(capacity: BlockLimits.discardRanges)

    /// - Parameter id: what the guest calls the disk's serial number; 20 bytes of it.
    init(file: BlockFile, readOnly: Bool, id: String) {
        self.file = file
        isReadOnly = readOnly
        queue = queues[0]
        ranges.initialize(repeating: BlockRange())
        let name = Array(id.utf8.prefix(Self.idSize))
        self.id = name + [UInt8](repeating: 0, count: Self.idSize - name.count)
        features =
            BlockFeature.segmentSize | BlockFeature.segments | BlockFeature.blockSize | BlockFeature.flush
            | (readOnly ? BlockFeature.readOnly : BlockFeature.discard | BlockFeature.writeZeroes)
        configuration = Self.configuration(file, readOnly: readOnly)
    }

    deinit { ranges.deallocate() }

    func serve(queue _: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        try queue.take(budget: Self.budget, interrupt: interrupt) { answer() }
    }

    /// Serves the held request. Answers the bytes written: those of the data, and the status.
    private func answer() -> UInt32 {
        guard let last = queue.writable.last, let base = last.iov_base else { return 0 }
        var data: UInt32 = 0
        let status = perform(&data)
        (base + last.iov_len - 1).storeBytes(of: status.rawValue, as: UInt8.self)
        return data + 1
    }

    /// Does what the held request asks for. `written` gets the bytes of the data written to the guest.
    private func perform(_ written: inout UInt32) -> BlockStatus {
        var header = BlockHeader()
        let size = BlockHeader.size
        guard Vectors.copyOut(queue.readable, to: &header, count: size) == size else { return .failed }
        let sent = Int(queue.readableBytes) - size
        let wanted = Int(queue.writableBytes) - 1
        switch BlockOperation(rawValue: UInt32(littleEndian: header.type)) {
        case .read:
            guard sent == 0, let offset = place(header, wanted) else { return .failed }
            let count = file.read(queue.writable, count: wanted, at: offset)
            written = UInt32(count)
            return count == wanted ? .done : .failed
        case .write:
            guard !isReadOnly, wanted == 0, let offset = place(header, sent),
                file.write(queue.readable, skip: size, count: sent, at: offset)
            else { return .failed }
            return kept()
        case .flush:
            return sent == 0 && wanted == 0 && file.flush() ? .done : .failed
        case .identify:
            guard sent == 0, wanted >= Self.idSize else { return .failed }
            written = UInt32(Vectors.copyIn(id, count: Self.idSize, to: queue.writable))
            return .done
        case .discard:
            guard !isReadOnly, wanted == 0 else { return .failed }
            return forEachRange(BlockFeature.discard, sent) { offset, count, _ in file.discard(offset, count: count) }
        case .writeZeroes:
            guard !isReadOnly, wanted == 0 else { return .failed }
            return forEachRange(BlockFeature.writeZeroes, sent) { file.zero($0, count: $1, mayUnmap: $2) }
        case nil: return .unsupported
        }
    }

    /// Where in the file a request's data is; nil when it is not wholly on the disk, no whole sectors, or too much.
    private func place(_ header: BlockHeader, _ count: Int) -> Int? {
        let sector = UInt64(littleEndian: header.sector)
        guard count % BlockFile.sectorSize == 0, count <= BlockLimits.data,
            file.contains(sector, count: UInt64(count / BlockFile.sectorSize))
        else { return nil }
        return Int(sector) * BlockFile.sectorSize
    }

    /// Checks all ranges of the held request, then does `body` with each one's offset, bytes, and leave to unmap.
    private func forEachRange(_ feature: UInt64, _ sent: Int, _ body: (Int, Int, Bool) -> Bool) -> BlockStatus {
        guard queue.features.rawValue & feature != 0 else { return .unsupported }
        let isDiscard = feature == BlockFeature.discard
        let count = sent / BlockRange.size
        guard count > 0, count <= (isDiscard ? BlockLimits.discardRanges : BlockLimits.zeroRanges),
            sent % BlockRange.size == 0, let base = ranges.baseAddress
        else { return .failed }
        _ = Vectors.copyOut(queue.readable, skip: BlockHeader.size, to: base, count: sent)
        let knownFlags = isDiscard ? 0 : BlockRange.unmap
        for range in ranges.prefix(count) where UInt32(littleEndian: range.flags) & ~knownFlags != 0 {
            return .unsupported
        }
        let limit = isDiscard ? BlockLimits.discardSectors : BlockLimits.zeroSectors
        for range in ranges.prefix(count) {
            let sectors = UInt32(littleEndian: range.sectors)
            guard sectors <= limit, file.contains(UInt64(littleEndian: range.sector), count: UInt64(sectors))
            else { return .failed }
        }
        for range in ranges.prefix(count) where range.sectors != 0 {
            let offset = Int(UInt64(littleEndian: range.sector)) * BlockFile.sectorSize
            let bytes = Int(UInt32(littleEndian: range.sectors)) * BlockFile.sectorSize
            guard body(offset, bytes, range.flags != 0) else { return .failed }
        }
        return kept()
    }

    /// A driver that can't flush believes that what is done is kept (virtio 1.2, 5.2.6.2).
    private func kept() -> BlockStatus {
        if queue.features.rawValue & BlockFeature.flush != 0 { return .done }
        return file.flush() ? .done : .failed
    }

    /// virtio 1.2, 5.2.4, up to the fields of zoned devices: a front end may ask for all of it.
    private static func configuration(_ file: BlockFile, readOnly: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        put(file.sectors)
        put(BlockLimits.segmentSize)
        put(BlockLimits.segments)
        put(0 as UInt32)  // geometry
        put(file.blockSize)
        put(0 as UInt64)  // topology
        put(0 as UInt32)  // writeback, num_queues
        put(readOnly ? 0 : BlockLimits.discardSectors)
        put(readOnly ? 0 : UInt32(BlockLimits.discardRanges))
        put(readOnly ? 0 : file.discardAlignment)
        put(readOnly ? 0 : BlockLimits.zeroSectors)
        put(readOnly ? 0 : UInt32(BlockLimits.zeroRanges))
        put(readOnly ? 0 : 1 as UInt32)  // write_zeroes_may_unmap
        return bytes + [UInt8](repeating: 0, count: 96 - bytes.count)
    }
}
