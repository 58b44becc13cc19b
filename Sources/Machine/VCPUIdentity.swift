import CLinux

/// What CPUID tells a guest: KVM's list, made the same for every processor but for its number.
enum VCPUIdentity {
    /// - Parameters:
    ///   - supported: what KVM can show, `KVM_GET_SUPPORTED_CPUID`.
    ///   - processor: number of the processor, which is its APIC id.
    ///   - count: processors of the machine; they look like so many cores of one package, one thread each.
    ///   - deadlineTimer: whether KVM's local APIC has the TSC deadline mode, which the list never says.
    static func entries(
        _ supported: [kvm_cpuid_entry2], processor: Int, count: Int, deadlineTimer: Bool
    ) -> [kvm_cpuid_entry2] {
        let id = UInt32(processor)
        let count = UInt32(count)
        // APIC ids of one package need so many bits.
        let coreBits = UInt32(32 - (count - 1).leadingZeroBitCount)
        var entries = supported.filter { !isTopology($0.function) }
        for index in entries.indices {
            switch entries[index].function {
            case 0x1:
                entries[index].ebx = entries[index].ebx & 0xffff | count << 16 | id << 24
                entries[index].ecx |= 1 << 31 | 1 << 21  // hypervisor, x2APIC
                if deadlineTimer { entries[index].ecx |= 1 << 24 }
                entries[index].ecx &= ~(1 << 15)  // PDCM: performance counters
                entries[index].edx = count > 1 ? entries[index].edx | 1 << 28 : entries[index].edx & ~(1 << 28)
            case 0x4, 0x8000_001d:
                guard entries[index].eax & 0x1f != 0 else { break }  // the end of the list
                // Bits 14–25: logical processors that share the cache, less 1. The third level is the package's.
                let shared = entries[index].eax >> 5 & 7 >= 3 ? (1 << coreBits) - 1 : 0
                entries[index].eax = entries[index].eax & 0x3fff | UInt32(shared) << 14
                if entries[index].function == 0x4 { entries[index].eax |= ((1 << coreBits) - 1) << 26 }
            case 0xa, 0x8000_0022:  // performance counters: none
                (entries[index].eax, entries[index].ebx, entries[index].ecx, entries[index].edx) = (0, 0, 0, 0)
            case 0x8000_0001:
                entries[index].ecx &= ~(1 << 23 | 1 << 24 | 1 << 28)  // AMD's performance counters
                entries[index].ecx &= ~(1 << 22)  // topology extension: its leaf is left out
                if count > 1 { entries[index].ecx |= 1 << 1 } else { entries[index].ecx &= ~(1 << 1) }
            case 0x8000_0008:
                entries[index].ecx = coreBits << 12 | (count - 1)
            default: break
            }
        }
        if (entries.first { $0.function == 0 }?.eax ?? 0) >= 0xb {
            entries += topology(0xb, id: id, count: count, coreBits: coreBits)
        }
        return entries
    }

    /// Leaves that describe the host's topology, which is not the guest's.
    private static func isTopology(_ function: UInt32) -> Bool {
        function == 0xb || function == 0x1f || function == 0x8000_001e
    }

    /// Extended topology (Intel SDM, CPUID leaf 0BH): threads, then cores.
    private static func topology(_ function: UInt32, id: UInt32, count: UInt32, coreBits: UInt32) -> [kvm_cpuid_entry2]
    {
        func level(_ index: UInt32, type: UInt32, shift: UInt32, processors: UInt32) -> kvm_cpuid_entry2 {
            var entry = kvm_cpuid_entry2()
            entry.function = function
            entry.index = index
            entry.flags = UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            entry.eax = shift
            entry.ebx = processors
            entry.ecx = index | type << 8
            entry.edx = id
            return entry
        }
        return [
            level(0, type: 1, shift: 0, processors: 1), level(1, type: 2, shift: coreBits, processors: count),
            level(2, type: 0, shift: 0, processors: 0),
        ]
    }
}
