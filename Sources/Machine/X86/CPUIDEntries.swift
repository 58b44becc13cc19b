import CLinux

/// The CPUID entries of a guest: KVM's list, the same for each vCPU except for its number.
enum CPUIDEntries {
    /// Makes a vCPU's entries.
    ///
    /// - Parameters:
    ///   - supported: what KVM can give a guest, `KVM.supportedCPUID` after `filled` and `CPUIDAllowList.filtered`.
    ///   - vcpu: the vCPU's number, which is its APIC id.
    ///   - count: vCPUs of the machine. They are cores of one package, one thread each.
    ///   - deadlineTimer: KVM's local APIC has the TSC deadline mode, which the list never says.
    /// - Returns: the entries for KVM_SET_CPUID2.
    static func entries(
        _ supported: [kvm_cpuid_entry2], vcpu: Int, count: Int, deadlineTimer: Bool
    ) -> [kvm_cpuid_entry2] {
        let id = UInt32(vcpu)
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
                entries[index].edx = count > 1 ? entries[index].edx | 1 << 28 : entries[index].edx & ~(1 << 28)
            case 0x4, amdCaches:
                guard entries[index].eax & 0x1f != 0 else { break }  // the end of the list
                // Bits 14–25: logical processors that share the cache, less 1. The third level is the package's.
                let shared = entries[index].eax >> 5 & 7 >= 3 ? (1 << coreBits) - 1 : 0
                entries[index].eax = entries[index].eax & 0x3fff | UInt32(shared) << 14
                if entries[index].function == 0x4 { entries[index].eax |= ((1 << coreBits) - 1) << 26 }
            case 0x8000_0001:
                if count > 1 { entries[index].ecx |= 1 << 1 } else { entries[index].ecx &= ~(1 << 1) }
            case 0x8000_0008:
                entries[index].ecx = coreBits << 12 | (count - 1)
            default: break
            }
        }
        if (entries.first { $0.function == 0 }?.eax ?? 0) >= 0xb {
            entries += topology(0xb, id: id, count: count, coreBits: coreBits)
        }
        if supported.contains(where: { $0.function == amdTopology }) { entries.append(amdTopology(id: id)) }
        return entries
    }

    /// Leaves that describe the host's topology, which is not the guest's.
    private static func isTopology(_ function: UInt32) -> Bool {
        function == 0xb || function == 0x1f || function == amdTopology
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

    /// AMD's topology (APM volume 3, Fn8000_001E): the APIC id, the core, one thread a core, one node.
    private static func amdTopology(id: UInt32) -> kvm_cpuid_entry2 {
        var entry = kvm_cpuid_entry2()
        entry.function = amdTopology
        entry.eax = id
        entry.ebx = id & 0xff
        return entry
    }

    // MARK: Leaves that KVM leaves empty

    /// AMD's caches: the first level with its TLBs, the second and third, each in detail (APM volume 3, Fn8000_0005, _0006,
    /// _001D), and the topology.
    private static let amdFirstLevel: UInt32 = 0x8000_0005
    private static let amdSecondLevel: UInt32 = 0x8000_0006
    private static let amdCaches: UInt32 = 0x8000_001d
    private static let amdTopology: UInt32 = 0x8000_001e
    /// A CPU has fewer caches than this.
    private static let maximumCaches: UInt32 = 16

    /// The four registers that CPUID answers in.
    struct Registers: Equatable {
        var eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
        var isEmpty: Bool { self == Registers() }
    }

    /// Fills the cache and topology leaves that KVM gives as zeros or not at all with the host CPU's own.
    ///
    /// Linux 6.1 (Debian 12) as a host gives zeros in leaf 0x80000005, and Linux as a guest on AMD family 15h divides by a
    /// field of it before it has a console.
    ///
    /// - Parameters:
    ///   - supported: `KVM.supportedCPUID`.
    ///   - host: CPUID of this CPU, by leaf and subleaf.
    /// - Returns: `supported` with these leaves filled, as far as the host has them.
    static func filled(
        _ supported: [kvm_cpuid_entry2], host: (_ leaf: UInt32, _ subleaf: UInt32) -> Registers
    ) -> [kvm_cpuid_entry2] {
        let last = min(host(0x8000_0000, 0).eax, supported.first { $0.function == 0x8000_0000 }?.eax ?? 0)
        var entries = supported
        for leaf in [amdFirstLevel, amdSecondLevel, amdCaches, amdTopology] where leaf <= last {
            let known = entries.filter { $0.function == leaf }
            guard known.allSatisfy({ Registers($0).isEmpty }) else { continue }
            let filling = leaf == amdCaches ? caches(host) : [entry(leaf, host(leaf, 0))]
            guard filling.contains(where: { !Registers($0).isEmpty }) else { continue }
            entries.removeAll { $0.function == leaf }
            entries += filling
        }
        return entries
    }

    /// One subleaf for each cache, and the empty one that ends the list.
    private static func caches(_ host: (UInt32, UInt32) -> Registers) -> [kvm_cpuid_entry2] {
        var entries: [kvm_cpuid_entry2] = []
        for index in 0..<maximumCaches {
            var cache = entry(amdCaches, host(amdCaches, index))
            cache.index = index
            cache.flags = UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            entries.append(cache)
            if cache.eax & 0x1f == 0 { break }
        }
        return entries
    }

    private static func entry(_ function: UInt32, _ registers: Registers) -> kvm_cpuid_entry2 {
        var entry = kvm_cpuid_entry2()
        entry.function = function
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (registers.eax, registers.ebx, registers.ecx, registers.edx)
        return entry
    }

    /// CPUID of the CPU that this thread runs on.
    static func host(_ leaf: UInt32, _ subleaf: UInt32) -> Registers {
        var registers: [UInt32] = [0, 0, 0, 0]
        martlet_cpuid(leaf, subleaf, &registers)
        return Registers(eax: registers[0], ebx: registers[1], ecx: registers[2], edx: registers[3])
    }
}

extension CPUIDEntries.Registers {
    init(_ entry: kvm_cpuid_entry2) { self.init(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx) }
}
