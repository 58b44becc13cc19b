import CLinux
import VMMControl

/// What of KVM's CPUID list a guest gets: leaves and bits that are known, and nothing else. A feature that a later host kernel or CPU
/// brings is not there until it is added here.
///
/// Sources: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst.
enum CPUIDAllowList {
    private typealias Place = CPUIDPlace

    /// Leaves that describe and have no features to choose from, besides those of `features`.
    private static let described: Set<UInt32> = [
        0x0, 0x2, 0x4, 0xb, 0xd, 0x15,
        0x4000_0000,
        0x8000_0000, 0x8000_0002, 0x8000_0003, 0x8000_0004, 0x8000_0005, 0x8000_0006, 0x8000_001a, 0x8000_001d,
        0x8000_001e,
    ]

    /// Leaves that are given as zeros: a kernel that sees none of them may look for others.
    private static let empty: Set<UInt32> = [0xa, 0x8000_000a, 0x8000_0022]

    /// The entries of `list` that a guest gets, with the bits that it gets.
    static func filtered(_ list: [kvm_cpuid_entry2], _ cpu: GuestCPU) -> [kvm_cpuid_entry2] {
        let components = stateComponents(cpu.profile)
        return list.compactMap { entry in
            var entry = entry
            let leaf = entry.function
            if leaf == 0xd {
                // State components: only those of instructions that the guest has.
                if entry.index > 1, entry.index < 64, components & 1 << UInt64(entry.index) == 0 { return nil }
                if entry.index == 0 {
                    entry.eax &= UInt32(truncatingIfNeeded: components)
                    entry.edx = 0
                }
                if entry.index == 1 { (entry.ecx, entry.edx) = (0, 0) }
            }
            if leaf == 0x8000_000a, cpu.nested { return entry }
            if empty.contains(leaf) {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0)
                return entry
            }
            var isKnown = described.contains(leaf)
            for register in CPUIDPlace.Register.allCases {
                guard let mask = mask(Place(leaf, register, subleaf: entry.index), cpu) else { continue }
                entry[register] &= mask
                isKnown = true
            }
            return isKnown ? entry : nil
        }
    }

    /// The bits of a register that a guest gets; nil: the register has no features.
    private static func mask(_ place: Place, _ cpu: GuestCPU) -> UInt32? {
        guard var mask = features[place] else { return nil }
        for set in InstructionSet.all where set.place == place {
            if set.level.isAllowed(in: cpu.profile) { mask |= set.bit } else { mask &= ~set.bit }
        }
        if cpu.nested { mask |= virtualization[place] ?? 0 }
        return mask
    }

    /// The components of XSAVE's state: x87, SSE, AVX, AVX-512, protection keys.
    private static func stateComponents(_ profile: GuestCPU.Profile) -> UInt64 {
        switch profile {
        case .host: 0b10_1110_0111
        case .level2: 0b11
        case .level3: 0b111
        case .level4: 0b1110_0111
        }
    }

    private static func bits(_ numbers: Int...) -> UInt32 { numbers.reduce(0) { $0 | 1 << UInt32($1) } }
    private static func bits(_ ranges: ClosedRange<Int>...) -> UInt32 {
        ranges.joined().reduce(0) { $0 | 1 << UInt32($1) }
    }

    /// VMX, and SVM.
    private static let virtualization = [Place(1, .ecx): bits(5), Place(0x8000_0001, .ecx): bits(2)]

    /// The bits of each register that all profiles have. Those of `InstructionSet` come besides.
    private static let features: [Place: UInt32] = [
        // Signature, APIC id and the like. The local APIC's parts are `CPUIDEntries`' to set.
        Place(1, .ecx): bits(17, 21, 24, 26, 27, 31),  // pcid, x2apic, tsc_deadline, xsave, osxsave, hypervisor
        // All but psn, ds, acpi, tm and pbe.
        Place(1, .edx): bits(0...9, 11...17, 19...19, 23...28),
        Place(6, .eax): bits(2),  // arat
        Place(6, .ebx): 0, Place(6, .ecx): 0, Place(6, .edx): 0,
        // fsgsbase, tsc_adjust, fdp_excptn_only, smep, erms, invpcid, zero_fcs_fds, smap
        Place(7, .ebx): bits(0, 1, 6, 7, 9, 10, 13, 20),
        Place(7, .ecx): bits(2, 4, 16),  // umip, ospke, la57
        // fsrm, md_clear, spec_ctrl, stibp, flush_l1d, arch_capabilities, ssbd
        Place(7, .edx): bits(4, 10, 26, 27, 28, 29, 31),
        Place(7, .eax, subleaf: 1): bits(10, 11, 12),  // fzrm, fsrs, fsrc
        Place(7, .ebx, subleaf: 1): 0, Place(7, .ecx, subleaf: 1): 0, Place(7, .edx, subleaf: 1): 0,
        Place(7, .eax, subleaf: 2): 0, Place(7, .ebx, subleaf: 2): 0, Place(7, .ecx, subleaf: 2): 0,
        Place(7, .edx, subleaf: 2): bits(0...5),  // controls of speculation
        Place(0xd, .eax, subleaf: 1): bits(0...3),  // xsaveopt, xsavec, xgetbv1, xsaves
        // All that KVM has but calls that share memory or move machines.
        Place(0x4000_0001, .eax): bits(0...15, 24...24),
        Place(0x4000_0001, .ebx): 0, Place(0x4000_0001, .ecx): 0,
        // lahf is an instruction set; cmp_legacy, cr8_legacy, osvw
        Place(0x8000_0001, .ecx): bits(1, 4, 9),
        // What leaf 1 has too; syscall, nx, mmxext, fxsr_opt, pdpe1gb, rdtscp, lm
        Place(0x8000_0001, .edx): bits(0...9, 11...17, 20...20, 22...27, 29...29),
        Place(0x8000_0007, .ebx): 0, Place(0x8000_0007, .ecx): 0,
        Place(0x8000_0007, .edx): bits(8),  // invariant TSC
        // xsaveerptr, ibpb, ibrs, stibp, always-on modes, same mode, ssbd, virt_ssbd, ssb_no, psfd, btc_no
        Place(0x8000_0008, .ebx): bits(2, 12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29),
        // Nested breakpoints, serializing lfence, verw_clear, null selectors, auto IBRS, answers to SRSO
        Place(0x8000_0021, .eax): bits(0, 2, 5, 6, 8, 27, 28, 29, 30),
        Place(0x8000_0021, .ebx): 0, Place(0x8000_0021, .ecx): bits(1, 2), Place(0x8000_0021, .edx): 0,
    ]
}

extension kvm_cpuid_entry2 {
    subscript(register: CPUIDPlace.Register) -> UInt32 {
        get {
            switch register {
            case .eax: eax
            case .ebx: ebx
            case .ecx: ecx
            case .edx: edx
            }
        }
        set {
            switch register {
            case .eax: eax = newValue
            case .ebx: ebx = newValue
            case .ecx: ecx = newValue
            case .edx: edx = newValue
            }
        }
    }
}
