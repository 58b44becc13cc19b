import CLinux
import Glibc
import LinuxSystem
import Virtio

/// The guest's memory as the front end has described it.
struct MemoryTable {
    static let maximumRegions: UInt32 = 8
    private static let pageSize = UInt64(max(4096, sysconf(Int32(_SC_PAGESIZE))))

    var memory: GuestMemory?

    init() {}

    /// Maps the regions of a SET_MEM_TABLE message.
    init(_ message: Message) throws(SessionError) {
        let request = message.header.request
        guard message.payload.count >= 8 else { throw .malformed(request, "payload of \(message.payload.count) bytes") }
        var fields = Fields(message.payload)
        let count = fields.u32()
        _ = fields.u32()
        guard count > 0, count <= Self.maximumRegions, message.payload.count == 8 + 32 * Int(count),
            message.descriptors.count == Int(count)
        else { throw .malformed(request, "\(count) regions, \(message.descriptors.count) descriptors") }
        var regions: [MemoryRegion] = []
        for descriptor in message.descriptors {
            let (guest, size, user, offset) = (fields.u64(), fields.u64(), fields.u64(), fields.u64())
            regions.append(try Self.map(descriptor, guest, size, user, offset, request))
        }
        do {
            memory = try GuestMemory(regions)
        } catch {
            throw .malformed(request, "\(error)")
        }
    }

    /// Whether nobody can make the file shorter, by its seals (fcntl(2)). A file in huge pages lies in a file system of its own and
    /// has none that could be set (F_SEAL_SEAL): martlet-vmm, from which such a file comes, may not shorten files.
    private static func keepsItsSize(_ file: SharedDescriptor) -> Bool {
        let seals = martlet_fcntl_int(file.raw, F_GET_SEALS, 0)
        return seals >= 0 && seals & (F_SEAL_SHRINK | F_SEAL_SEAL) != 0
    }

    private static func map(
        _ file: SharedDescriptor, _ guest: UInt64, _ size: UInt64, _ user: UInt64, _ offset: UInt64, _ request: UInt32
    ) throws(SessionError) -> MemoryRegion {
        var status = stat()
        guard fstat(file.raw, &status) == 0 else { throw .system(.last("fstat", "guest memory")) }
        let (end, overflow) = offset.addingReportingOverflow(size)
        // Access to a mapping beyond the end of its file raises SIGBUS.
        guard size > 0, !overflow, let fileSize = UInt64(exactly: status.st_size), end <= fileSize,
            let count = Int(exactly: size), let start = Int64(exactly: offset), offset % Self.pageSize == 0
        else { throw .malformed(request, "region of \(size) bytes at \(offset) in a file of \(status.st_size)") }
        guard keepsItsSize(file) else { throw .malformed(request, "a memory file without the seal F_SEAL_SHRINK") }
        do {
            return try MemoryRegion(
                guestAddress: guest, userAddress: user, mapping: Mapping(file: file.raw, offset: start, count: count))
        } catch let error as SystemError {
            throw .system(error)
        } catch {
            throw .malformed(request, "\(error)")
        }
    }
}
