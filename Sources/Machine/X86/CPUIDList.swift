import CLinux
import Glibc
import LinuxSystem

extension KVM {
    /// The CPUID entries that KVM can give a guest (KVM api.rst 4.46).
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
