import CLinux
import Glibc
public import LinuxSystem

/// The guest's root image: a file of the host that lies in the guest's address space above all memory. The guest reads the pages of
/// the host's page cache, which all machines on the host share. A write ends the machine.
final class RootImage: BusDevice, @unchecked Sendable {
    /// Linux maps persistent memory in units of this size.
    static let alignment: UInt64 = 2 << 20

    /// Guest-physical addresses.
    let range: Range<UInt64>
    let mapping: Mapping
    private let onWrite: @Sendable (UInt64) -> Void

    /// Maps the file.
    ///
    /// - Parameters:
    ///   - address: where the guest finds it.
    ///   - onWrite: the guest has written to the address; called on a vCPU's thread.
    /// - Throws: `MachineError` where it is no regular file, or of no possible size.
    init(_ file: SharedDescriptor, at address: UInt64, onWrite: @escaping @Sendable (UInt64) -> Void) throws {
        var facts = stat()
        try check("fstat", "root image", fstat(file.raw, &facts))
        guard facts.st_mode & S_IFMT == S_IFREG else { throw MachineError("root image: not a regular file") }
        let count = UInt64(clamping: facts.st_size)
        guard count > 0, count % Self.alignment == 0, count <= MemoryMap.rootImageLimit else {
            throw MachineError("root image: \(count) bytes are not a multiple of 2 MiB from 2 MiB to 1 GiB")
        }
        mapping = try Mapping(file: file.raw, count: Int(count), protection: PROT_READ)
        range = address..<address + count
        self.onWrite = onWrite
    }

    /// KVM serves reads from the mapping; only writes leave the guest.
    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) { onWrite(range.lowerBound + offset) }
}

extension VMM {
    /// Has the guest see a file as read-only memory.
    ///
    /// - Parameter file: a regular file of whole 2 MiB, open for reading.
    /// - Returns: its guest-physical addresses.
    /// - Throws: `MachineError` where the machine has been booted, or has an image, or the file can't be one.
    public func mapRootImage(_ file: SharedDescriptor) throws -> Range<UInt64> {
        try lifecycle.require("map root image") { $0 == .created }
        guard rootImage == nil else { throw MachineError("the machine has a root image already") }
        let image = try RootImage(file, at: vm.map.rootImage) { [onEnd] in onEnd(.rootImageWritten(address: $0)) }
        try vm.addMemory(
            slot: UInt32(vm.map.ranges.count + 1), at: image.range.lowerBound, image.mapping.base,
            UInt64(image.mapping.count), flags: UInt32(KVM_MEM_READONLY))
        rootImage = image
        return image.range
    }
}
