import CLinux
import Glibc
public import LinuxSystem

/// /dev/kvm, opened by someone else.
///
/// Source: Documentation/virt/kvm/api.rst, whose section numbers stand at the calls.
public struct KVM: Sendable {
    let device: SharedDescriptor
    /// Bytes of the memory that a virtual processor shares with this process (4.5).
    let processorMappingSize: Int

    /// - Throws: `MachineError` where it is no KVM, or lacks what this program needs.
    public init(device: SharedDescriptor) throws {
        self.device = device
        let version = try check(
            "KVM_GET_API_VERSION", "", martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_GET_API_VERSION), 0))
        guard version == KVM_API_VERSION else { throw MachineError("/dev/kvm: API version \(version), not 12") }
        processorMappingSize = Int(
            try check(
                "KVM_GET_VCPU_MMAP_SIZE", "", martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_GET_VCPU_MMAP_SIZE), 0)))
        for (number, name) in Self.needed where extent(of: number) <= 0 {
            throw MachineError("/dev/kvm lacks \(name)")
        }
    }

    private static let needed: [(Int32, String)] = [
        (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"), (KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
        (KVM_CAP_IRQFD, "KVM_CAP_IRQFD"), (KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"),
        (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"), (KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"),
        (KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"),
    ]

    /// What KVM says of an extension: 0 where it lacks it (4.4).
    func extent(of capability: Int32) -> Int32 {
        martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_CHECK_EXTENSION), Int(capability))
    }

    /// What KVM can show a guest of the processor (4.46).
    func supportedCPUID() throws -> [kvm_cpuid_entry2] {
        var capacity = 128
        while true {
            let list = CPUIDList(capacity: capacity)
            let result = martlet_ioctl_pointer(device.raw, UInt(MARTLET_KVM_GET_SUPPORTED_CPUID), list.pointer)
            if result == 0 { return list.entries }
            guard errno == E2BIG, capacity < 1024 else { throw SystemError.last("KVM_GET_SUPPORTED_CPUID") }
            capacity *= 2
        }
    }
}

/// `struct kvm_cpuid2`, whose entries follow it in memory.
final class CPUIDList {
    let pointer: UnsafeMutableRawPointer
    private static let header = MemoryLayout<kvm_cpuid2>.size

    init(capacity: Int) {
        let count = Self.header + capacity * MemoryLayout<kvm_cpuid_entry2>.stride
        pointer = .allocate(byteCount: count, alignment: 8)
        pointer.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        pointer.storeBytes(of: UInt32(capacity), as: UInt32.self)
    }

    convenience init(_ entries: [kvm_cpuid_entry2]) {
        self.init(capacity: entries.count)
        for (index, entry) in entries.enumerated() { table[index] = entry }
    }

    deinit { pointer.deallocate() }

    private var table: UnsafeMutablePointer<kvm_cpuid_entry2> {
        (pointer + Self.header).assumingMemoryBound(to: kvm_cpuid_entry2.self)
    }

    var entries: [kvm_cpuid_entry2] {
        Array(UnsafeBufferPointer(start: table, count: Int(pointer.load(as: UInt32.self))))
    }
}
