import CLinux

/// A register of CPUID's answer to a leaf and subleaf.
public struct CPUIDPlace: Hashable, Sendable {
    public enum Register: Int, CaseIterable, Sendable {
        case eax, ebx, ecx, edx
    }

    public var leaf: UInt32
    public var subleaf: UInt32
    public var register: Register

    public init(_ leaf: UInt32, _ register: Register, subleaf: UInt32 = 0) {
        self.leaf = leaf
        self.subleaf = subleaf
        self.register = register
    }
}

/// A feature bit of CPUID that programs find instructions by. Names are those of Linux's `/proc/cpuinfo`.
public struct InstructionSet: Sendable {
    public enum Level: Sendable, Equatable {
        /// All profiles from this level on have it, and promise it.
        case promised(Int)
        /// All profiles from this level on have it, where the host has it.
        case added(Int)
        /// Only the profile `host` has it.
        case host

        public func isAllowed(in profile: GuestCPU.Profile) -> Bool {
            switch self {
            case .promised(let first), .added(let first): profile.number >= first
            case .host: profile == .host
            }
        }
    }

    public let name: String
    public let place: CPUIDPlace
    public let bit: UInt32
    public let level: Level

    private static func of(
        _ leaf: UInt32, _ register: CPUIDPlace.Register, subleaf: UInt32 = 0, _ level: Level, _ bits: [String: Int]
    ) -> [InstructionSet] {
        bits.map {
            InstructionSet(
                name: $0.key, place: .init(leaf, register, subleaf: subleaf), bit: 1 << UInt32($0.value), level: level)
        }
    }

    /// The levels are those of the x86-64 psABI, table "Micro-Architecture Levels".
    public static let all: [InstructionSet] =
        of(1, .ecx, .promised(2), ["sse3": 0, "ssse3": 9, "cx16": 13, "sse4_1": 19, "sse4_2": 20, "popcnt": 23])
        + of(1, .ecx, .added(2), ["pclmulqdq": 1, "aes": 25, "rdrand": 30])
        + of(1, .ecx, .promised(3), ["fma": 12, "movbe": 22, "avx": 28, "f16c": 29])
        + of(0x8000_0001, .ecx, .promised(2), ["lahf_lm": 0])
        + of(0x8000_0001, .ecx, .promised(3), ["abm": 5])
        + of(7, .ebx, .promised(3), ["bmi1": 3, "avx2": 5, "bmi2": 8])
        + of(
            7, .ebx, .promised(4),
            ["avx512f": 16, "avx512dq": 17, "avx512cd": 28, "avx512bw": 30, "avx512vl": 31])
        + of(
            7, .ebx, .host,
            [
                "rdseed": 18, "adx": 19, "avx512ifma": 21, "clflushopt": 23, "clwb": 24, "avx512pf": 26,
                "avx512er": 27, "sha_ni": 29,
            ])
        + of(
            7, .ecx, .host,
            [
                "prefetchwt1": 0, "avx512vbmi": 1, "pku": 3, "avx512_vbmi2": 6, "gfni": 8, "vaes": 9,
                "vpclmulqdq": 10, "avx512_vnni": 11, "avx512_bitalg": 12, "avx512_vpopcntdq": 14, "rdpid": 22,
                "cldemote": 25, "movdiri": 27, "movdir64b": 28,
            ])
        + of(
            7, .edx, .host,
            [
                "avx512_4vnniw": 2, "avx512_4fmaps": 3, "avx512_vp2intersect": 8, "serialize": 14, "avx512_fp16": 23,
            ])
        + of(7, .eax, subleaf: 1, .host, ["avx_vnni": 4, "avx512_bf16": 5, "avx_ifma": 23])
        + of(7, .edx, subleaf: 1, .host, ["avx_vnni_int8": 4, "avx_ne_convert": 5, "prefetchiti": 14])
        + of(
            0x8000_0001, .ecx, .host,
            ["sse4a": 6, "misalignsse": 7, "3dnowprefetch": 8, "xop": 11, "fma4": 16, "tbm": 21])
        + of(0x8000_0008, .ebx, .host, ["clzero": 0, "wbnoinvd": 9])
}

extension GuestCPU.Profile {
    /// What the profile promises and this host's CPU does not have.
    public var missingHere: [String] {
        InstructionSet.all.filter { set in
            guard self != .host, case .promised(let first) = set.level, first <= number else { return false }
            var registers: [UInt32] = [0, 0, 0, 0]
            martlet_cpuid(set.place.leaf, set.place.subleaf, &registers)
            return registers[set.place.register.rawValue] & set.bit == 0
        }.map(\.name).sorted()
    }

    /// What it hides of a CPU that has all.
    public var hidden: [String] { InstructionSet.all.filter { !$0.level.isAllowed(in: self) }.map(\.name).sorted() }

    /// The level of the psABI; `host` is above all.
    var number: Int {
        switch self {
        case .level2: 2
        case .level3: 3
        case .level4: 4
        case .host: 9
        }
    }
}
