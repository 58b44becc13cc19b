public import LinuxSystem
import Virtio

/// A range of guest memory that a device process maps too.
public struct SharedMemoryRegion: Sendable {
    /// First guest-physical address.
    public var guestAddress: UInt64
    /// The address of the same byte in this process.
    public var userAddress: UInt64
    /// Bytes.
    public var size: UInt64
    /// The memory file.
    public var file: SharedDescriptor
    /// The offset of the region in the file, bytes.
    public var offset: UInt64

    public init(guestAddress: UInt64, userAddress: UInt64, size: UInt64, file: SharedDescriptor, offset: UInt64) {
        self.guestAddress = guestAddress
        self.userAddress = userAddress
        self.size = size
        self.file = file
        self.offset = offset
    }
}

/// All of a guest's memory, as the front end describes it to the back end.
struct SharedMemory {
    let regions: [SharedMemoryRegion]

    init(_ regions: [SharedMemoryRegion]) throws(SessionError) {
        guard !regions.isEmpty, regions.count <= Int(MemoryTable.maximumRegions) else {
            throw .malformed(Request.setMemoryTable.rawValue, "\(regions.count) regions")
        }
        self.regions = regions
    }

    /// The SET_MEM_TABLE request.
    var request: FrontEndConnection.OutgoingRequest {
        var payload: [UInt8] = []
        payload.append(littleEndian: UInt32(regions.count))
        payload.append(littleEndian: 0 as UInt32)
        for region in regions {
            for field in [region.guestAddress, region.size, region.userAddress, region.offset] {
                payload.append(littleEndian: field)
            }
        }
        return .init(request: .setMemoryTable, payload: payload, descriptors: regions.map(\.file.raw))
    }

    /// The address in this process of the part of a ring at a guest-physical address.
    func userAddress(_ part: QueueError.RingPart, _ address: UInt64) throws(QueueError) -> UInt64 {
        for region in regions where address >= region.guestAddress && address - region.guestAddress < region.size {
            return region.userAddress &+ (address - region.guestAddress)
        }
        throw .ringOutsideMemory(part: part, address: address)
    }
}
