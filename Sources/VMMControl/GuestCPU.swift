/// What a guest sees of the host's CPU.
public struct GuestCPU: Sendable, Hashable, Codable, CustomStringConvertible {
    /// The instruction sets that programs in the guest find: all that Martlet knows and the host has, or those of a level of the
    /// x86-64 psABI ("Micro-Architecture Levels") with AES, PCLMULQDQ and RDRAND, where the host has these.
    public enum Profile: String, Sendable, Hashable, Codable, CaseIterable {
        case host
        case level2 = "x86-64-v2"
        case level3 = "x86-64-v3"
        case level4 = "x86-64-v4"

        /// As messages and saved states have it.
        public var code: UInt32 { UInt32(Self.allCases.firstIndex(of: self) ?? 0) }

        /// - Returns: nil for a code of no profile.
        public init?(code: UInt32) {
            guard code < Self.allCases.count else { return nil }
            self = Self.allCases[Int(code)]
        }
    }

    public var profile: Profile
    /// The guest sees the CPU's virtualization.
    public var nested: Bool

    public init(profile: Profile = .host, nested: Bool = false) {
        self.profile = profile
        self.nested = nested
    }

    public var description: String { profile.rawValue + (nested ? " with virtualization" : "") }
}

extension GuestCPU {
    func encode(to packet: inout PacketWriter<some Sendable>) {
        packet.add(profile.code)
        packet.add(nested)
    }

    init(from packet: inout PacketReader<some Sendable>) throws(FieldError) {
        let number: UInt32 = try packet.number("cpu.profile")
        guard let profile = Profile(code: number) else { throw FieldError("cpu.profile: \(number) is not known") }
        self.profile = profile
        nested = try packet.flag("cpu.nested")
    }
}
