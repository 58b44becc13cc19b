import CLinux
import Testing
import VMMControl

@testable import Machine

@Suite struct CPUIDTests {
    private func leaf(
        _ function: UInt32, _ index: UInt32 = 0, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
    )
        -> kvm_cpuid_entry2
    {
        var entry = kvm_cpuid_entry2()
        (entry.function, entry.index) = (function, index)
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, ebx, ecx, edx)
        return entry
    }

    /// VMX and SVM let a guest reach much more of the host's KVM.
    @Test func aGuestSeesNoVirtualizationUnlessItMay() {
        let host = [
            leaf(0, eax: 0x10), leaf(1, ecx: 1 << 5), leaf(0x8000_0001, ecx: 1 << 2),
            leaf(0x8000_000a, eax: 1, ebx: 0x8000, edx: 0xff),
        ]
        func entries(_ nested: Bool) -> [kvm_cpuid_entry2] {
            CPUIDEntries.entries(
                CPUIDAllowList.filtered(host, .init(nested: nested)), vcpu: 0, count: 1, deadlineTimer: false)
        }
        func one(_ function: UInt32, _ nested: Bool) -> CPUIDEntries.Registers? {
            entries(nested).first { $0.function == function }.map { .init($0) }
        }
        #expect(one(1, false).map { $0.ecx & 1 << 5 } == 0)
        #expect(one(0x8000_0001, false).map { $0.ecx & 1 << 2 } == 0)
        #expect(one(0x8000_000a, false)?.isEmpty == true)
        #expect(one(1, true).map { $0.ecx & 1 << 5 } == 1 << 5)
        #expect(one(0x8000_0001, true).map { $0.ecx & 1 << 2 } == 1 << 2)
        #expect(one(0x8000_000a, true) == .init(eax: 1, ebx: 0x8000, ecx: 0, edx: 0xff))
    }

    /// A leaf or a bit that nobody has thought of does not reach a guest.
    @Test func aGuestGetsOnlyWhatIsKnown() {
        let all: [kvm_cpuid_entry2] = [
            leaf(1, ecx: ~0, edx: ~0), leaf(7, ebx: ~0, ecx: ~0, edx: ~0), leaf(7, 1, eax: ~0, edx: ~0),
            leaf(0x12, eax: ~0),
            leaf(0x14, eax: 1), leaf(0x1d, eax: 1), leaf(0xd, eax: ~0), leaf(0xd, 17, eax: 64), leaf(0xd, 2, eax: 256),
            leaf(0x8000_001f, eax: ~0),
        ]
        let list = CPUIDAllowList.filtered(all, .init())
        #expect(list.map(\.function) == [1, 7, 7, 0xd, 0xd])
        // VMX, monitor and performance counters; TSX, SGX and tracing; AMX.
        #expect(list[0].ecx & (1 << 5 | 1 << 3 | 1 << 15) == 0 && list[0].ecx & 1 << 28 != 0)
        #expect(list[1].ebx & (1 << 4 | 1 << 11 | 1 << 2 | 1 << 25) == 0 && list[1].ebx & 1 << 16 != 0)
        #expect(list[1].edx & (1 << 22 | 1 << 24 | 1 << 25) == 0 && list[1].edx & 1 << 26 != 0)
        #expect(list[3].eax == 0x2e7)
    }

    @Test func aProfileHasTheInstructionsOfItsLevel() {
        let all = [
            leaf(1, ecx: ~0), leaf(7, ebx: ~0, ecx: ~0), leaf(0xd, eax: ~0), leaf(0xd, 2), leaf(0xd, 5), leaf(0xd, 9),
            leaf(0x8000_0001, ecx: ~0),
        ]
        /// AVX, AVX2, AVX-512 and LZCNT, and which state XSAVE has.
        func sets(_ profile: GuestCPU.Profile) -> [Bool] {
            let list = CPUIDAllowList.filtered(all, .init(profile: profile))
            func has(_ function: UInt32, _ register: CPUIDPlace.Register, _ bit: Int) -> Bool {
                list.contains { $0.function == function && $0[register] & 1 << UInt32(bit) != 0 }
            }
            // SSE4.2, and what mitigates and isolates: in all of them.
            #expect(has(1, .ecx, 20) && has(7, .ebx, 20) && has(1, .ecx, 25))
            return [
                has(1, .ecx, 28), has(7, .ebx, 5), has(7, .ebx, 16), has(0x8000_0001, .ecx, 5), has(0xd, .eax, 2),
                has(0xd, .eax, 7), has(7, .ebx, 29), list.contains { $0.function == 0xd && $0.index == 9 },
            ]
        }
        #expect(sets(.level2) == [false, false, false, false, false, false, false, false])
        #expect(sets(.level3) == [true, true, false, true, true, false, false, false])
        #expect(sets(.level4) == [true, true, true, true, true, true, false, false])
        #expect(sets(.host) == [true, true, true, true, true, true, true, true])
    }

    @Test func everyVCPUIsTheSameButForItsNumber() {
        let host = [
            leaf(0, eax: 0x10), leaf(1, ebx: 0x7f20_0800, ecx: 1 << 15), leaf(0xa, eax: 0x0730_0402),
            leaf(0xb, edx: 99), leaf(0x8000_0001, ecx: 1 << 23), leaf(0x8000_0022, eax: 1),
        ]
        for count in [1, 2, 3, 8, 32] {
            for vcpu in 0..<count {
                let entries = CPUIDEntries.entries(
                    CPUIDAllowList.filtered(host, .init()), vcpu: vcpu, count: count, deadlineTimer: true)
                func one(_ function: UInt32, _ index: UInt32 = 0) -> kvm_cpuid_entry2? {
                    let found = entries.filter { $0.function == function && $0.index == index }
                    #expect(found.count == 1)
                    return found.first
                }
                #expect(one(1)?.ebx == 0x0800 | UInt32(count) << 16 | UInt32(vcpu) << 24)
                #expect(one(1)?.ecx == 1 << 31 | 1 << 24 | 1 << 21)
                #expect(one(0xa)?.eax == 0)
                #expect(one(0x8000_0022)?.eax == 0)
                #expect(one(0x8000_0001).map { $0.ecx & 1 << 23 } == 0)
                #expect(one(0xb, 1)?.ebx == UInt32(count))
                #expect(one(0xb, 1)?.edx == UInt32(vcpu))
                let bits = one(0xb, 1)?.eax ?? 99
                #expect(1 << bits >= count && (count == 1 || 1 << (bits - 1) < count))
            }
        }
    }

    private typealias Registers = CPUIDEntries.Registers

    /// A family 15h processor, as far as the tests ask for it.
    private static let host: [UInt32: [CPUIDEntries.Registers]] = [
        0x8000_0000: [.init(eax: 0x8000_001e)],
        0x8000_0005: [.init(eax: 0xff30_ff18, ebx: 0xff30_ff20, ecx: 0x1004_0140, edx: 0x4003_0140)],
        0x8000_0006: [.init(eax: 0x6400_4200, ebx: 0x6400_4200, ecx: 0x0800_8140, edx: 0x0030_8140)],
        0x8000_001d: [
            .init(eax: 0x121, ebx: 0x00c0_003f, ecx: 63), .init(eax: 0x4_0122, ebx: 0x0040_003f, ecx: 511, edx: 0),
            .init(eax: 0x1c163, ebx: 0x0bc0_003f, ecx: 2047), .init(),
        ],
        0x8000_001e: [.init(eax: 7, ebx: 0x103, ecx: 0x101)],
    ]

    private static func cpu(_ leaf: UInt32, _ subleaf: UInt32) -> CPUIDEntries.Registers {
        let leaves = host[leaf] ?? []
        return Int(subleaf) < leaves.count ? leaves[Int(subleaf)] : .init()
    }

    /// Linux 6.1's KVM gives zeros in 0x80000005, and Linux divides by a field of it.
    @Test func cacheLeavesWithoutContentAreTheHosts() {
        let zeros = [0x8000_0005, 0x8000_0006, 0x8000_001d, 0x8000_001e].map { leaf($0) }
        for empty in [zeros, [zeros[0]], []] {
            let supported = [leaf(0, eax: 0xd), leaf(0x8000_0000, eax: 0x8000_0021)] + empty
            let filled = CPUIDEntries.filled(supported, host: Self.cpu)
            for number: UInt32 in [0x8000_0005, 0x8000_0006, 0x8000_001e] {
                #expect(filled.filter { $0.function == number }.map { Registers($0) } == Self.host[number])
            }
            let caches = filled.filter { $0.function == 0x8000_001d }
            #expect(caches.map { Registers($0) } == Self.host[0x8000_001d])
            #expect(caches.map(\.index) == [0, 1, 2, 3])
            #expect(caches.allSatisfy { $0.flags == UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX) })
            // The host's topology is not the guest's.
            let entries = CPUIDEntries.entries(filled, vcpu: 1, count: 2, deadlineTimer: true)
            #expect(entries.filter { $0.function == 0x8000_001e }.map { Registers($0) } == [.init(eax: 1, ebx: 1)])
            #expect(entries.first { $0.function == 0x8000_0005 }.map { $0.ecx >> 16 & 0xff } == 4)
        }
    }

    @Test func whatKVMGivesStays() {
        let known = leaf(0x8000_0005, ebx: 1, ecx: 2)
        let supported = [leaf(0x8000_0000, eax: 0x8000_0006), known]
        let filled = CPUIDEntries.filled(supported, host: Self.cpu)
        #expect(filled.filter { $0.function == 0x8000_0005 }.map { Registers($0) } == [Registers(known)])
        #expect(filled.contains { $0.function == 0x8000_0006 })
        // Beyond the guest's last leaf nothing is added; nor what the host has not.
        #expect(!filled.contains { $0.function == 0x8000_001d })
        #expect(CPUIDEntries.filled(supported) { _, _ in .init() }.count == supported.count)
    }

    @Test func thisCPUAnswers() {
        #expect(CPUIDEntries.host(0, 0).eax >= 1)
        #expect(CPUIDEntries.host(0x8000_0000, 0).eax >= 0x8000_0008)
    }
}
