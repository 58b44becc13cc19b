import Glibc
import LinuxSystem

/// A virtio block device with one queue (virtio 1.2, 5.2), whose disk is a raw file.
///
/// A request may use any number of descriptors: header, data, and the status as the last byte that the device may write. The
/// status reports what is wrong with the request. A request without room for a status is completed without being performed.
/// The device belongs to one thread.
final class BlockDevice: ThreadedDevice, @unchecked Sendable {
    /// Requests served before the queue may be stopped.
    private static let budget = 16
    /// The length of the serial number that GET_ID asks for, bytes.
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

    /// - Parameter id: the disk's serial number in the guest; the first 20 bytes count.
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
        try queue.serveWithoutKick(budget: Self.budget, interrupt: interrupt) { serveRequest() }
    }

    /// Serves the current request.
    ///
    /// - Returns: the number of bytes written: the data and the status.
    private func serveRequest() -> UInt32 {
        guard let last = queue.writable.last, let base = last.iov_base else { return 0 }
        var data: UInt32 = 0
        let status = perform(&data)
        (base + last.iov_len - 1).storeBytes(of: status.rawValue, as: UInt8.self)
        return data + 1
    }

    /// Performs the current request. `written` is set to the number of data bytes written to the guest.
    private func perform(_ written: inout UInt32) -> BlockStatus {
        var header = BlockHeader()
        let size = BlockHeader.size
        guard Vectors.copyOut(queue.readable, to: &header, count: size) == size else { return .failed }
        let readable = Int(queue.readableBytes) - size
        let writable = Int(queue.writableBytes) - 1
        switch BlockOperation(rawValue: UInt32(littleEndian: header.type)) {
        case .read:
            guard readable == 0, let offset = offset(header, writable) else { return .failed }
            let count = file.read(queue.writable, count: writable, at: offset)
            written = UInt32(count)
            return count == writable ? .done : .failed
        case .write:
            guard !isReadOnly, writable == 0, let offset = offset(header, readable),
                file.write(queue.readable, skip: size, count: readable, at: offset)
            else { return .failed }
            return completeWrite()
        case .flush:
            return readable == 0 && writable == 0 && file.flush() ? .done : .failed
        case .identify:
            guard readable == 0, writable >= Self.idSize else { return .failed }
            written = UInt32(Vectors.copyIn(id, count: Self.idSize, to: queue.writable))
            return .done
        case .discard:
            guard !isReadOnly, writable == 0 else { return .failed }
            return forEachRange(BlockFeature.discard, readable) { offset, count, _ in file.discard(offset, count: count)
            }
        case .writeZeroes:
            guard !isReadOnly, writable == 0 else { return .failed }
            return forEachRange(BlockFeature.writeZeroes, readable) { file.zero($0, count: $1, mayUnmap: $2) }
        case nil: return .unsupported
        }
    }

    /// The offset of a request's data in the file; nil when it is not all on the disk, not whole sectors, or too long.
    private func offset(_ header: BlockHeader, _ count: Int) -> Int? {
        let sector = UInt64(littleEndian: header.sector)
        guard count % BlockFile.sectorSize == 0, count <= BlockLimits.data,
            file.contains(sector, count: UInt64(count / BlockFile.sectorSize))
        else { return nil }
        return Int(sector) * BlockFile.sectorSize
    }

    /// Checks all ranges of the current request, then calls `body` with each one's offset, length in bytes, and whether it may
    /// be unmapped.
    private func forEachRange(_ feature: UInt64, _ length: Int, _ body: (Int, Int, Bool) -> Bool) -> BlockStatus {
        guard queue.features.rawValue & feature != 0 else { return .unsupported }
        let isDiscard = feature == BlockFeature.discard
        let count = length / BlockRange.size
        guard count > 0, count <= (isDiscard ? BlockLimits.discardRanges : BlockLimits.zeroRanges),
            length % BlockRange.size == 0, let base = ranges.baseAddress
        else { return .failed }
        _ = Vectors.copyOut(queue.readable, skip: BlockHeader.size, to: base, count: length)
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
        return completeWrite()
    }

    /// Flushes for a driver that can't: it expects a completed write to be on stable storage (virtio 1.2, 5.2.6.2).
    private func completeWrite() -> BlockStatus {
        if queue.features.rawValue & BlockFeature.flush != 0 { return .done }
        return file.flush() ? .done : .failed
    }

    /// The configuration space (virtio 1.2, 5.2.4) up to the fields of zoned devices, since a front end may ask for all of it.
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
