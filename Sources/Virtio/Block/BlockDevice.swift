import Glibc
import LinuxSystem

/// A virtio block device (virtio 1.2, 5.2), whose disk is a raw file.
///
/// A request may use any number of descriptors: header, data, and the status as the last byte that the device may write. The
/// status reports what is wrong with the request. A request without room for a status is completed without being performed.
/// Each queue belongs to one thread.
final class BlockDevice: ThreadedDevice, @unchecked Sendable {
    /// The length of the serial number that GET_ID asks for, bytes.
    static let idSize = 20

    let queues: [Virtqueue]
    /// The feature bits offered.
    let features: UInt64
    /// The configuration space.
    let configuration: [UInt8]
    /// What GET_ID answers, `idSize` bytes.
    let serial: [UInt8]
    private let served: [BlockQueue]

    /// - Parameters:
    ///   - id: the disk's serial number in the guest; the first 20 bytes count.
    ///   - rings: one for each queue, in which there may be none.
    init(file: BlockFile, readOnly: Bool, id: String, rings: [IORing?] = [nil]) {
        let name = Array(id.utf8.prefix(Self.idSize))
        let serial = name + [UInt8](repeating: 0, count: Self.idSize - name.count)
        self.serial = serial
        let writers = max(2, BlockWriters.threads / rings.count)
        served = rings.map { BlockQueue(Virtqueue(), file, readOnly: readOnly, id: serial, ring: $0, writers: writers) }
        queues = served.map(\.queue)
        features =
            BlockFeature.segmentSize | BlockFeature.segments | BlockFeature.blockSize | BlockFeature.flush
            | (rings.count > 1 ? BlockFeature.multiqueue : 0)
            | (readOnly ? BlockFeature.readOnly : BlockFeature.discard | BlockFeature.writeZeroes)
        configuration = Self.configuration(file, readOnly: readOnly, queues: rings.count)
    }

    func serve(queue: Int, interrupt: () -> Void) throws(QueueError) -> ServiceProgress {
        try served[queue].serve(interrupt: interrupt)
    }

    func isPending(queue: Int) -> Bool { served[queue].isPending }
    func arm(queue: Int, isIdle: Bool) -> Bool { served[queue].arm() }
    func finish(queue: Int) { served[queue].finish() }
    func source(of queue: Int) -> Int32? { served[queue].source }
    func waitsForSource(queue: Int) -> Bool { true }
    var pollsSources: Bool { true }

    /// The configuration space (virtio 1.2, 5.2.4) up to the fields of zoned devices, since a front end may ask for all of it.
    private static func configuration(_ file: BlockFile, readOnly: Bool, queues: Int) -> [UInt8] {
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
        put(0 as UInt16)  // writeback
        put(UInt16(queues))
        put(readOnly ? 0 : BlockLimits.discardSectors)
        put(readOnly ? 0 : UInt32(BlockLimits.discardRanges))
        put(readOnly ? 0 : file.discardAlignment)
        put(readOnly ? 0 : BlockLimits.zeroSectors)
        put(readOnly ? 0 : UInt32(BlockLimits.zeroRanges))
        put(readOnly ? 0 : 1 as UInt32)  // write_zeroes_may_unmap
        return bytes + [UInt8](repeating: 0, count: 96 - bytes.count)
    }
}
