import Glibc

extension ResourcePlan {
    /// `cpu.weight`, 1 to 10000 with 100 as the default, for shares, 2 to 262144 with 1024 as the default: a curve through the
    /// three (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value).
    static func weight(shares: UInt64) -> UInt64 {
        if shares <= 2 { return 1 }
        if shares >= 262_144 { return 10_000 }
        let bits = log2(Double(shares))
        return UInt64(ceil(pow(10, (bits * bits + 125 * bits) / 612 - 7.0 / 34)))
    }
}
