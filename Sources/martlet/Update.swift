import ArgumentParser
import LinuxSystem
import OCISpec
import PodService
import Sandbox

struct Update: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Change the limits of a container.",
        discussion: "Amounts of memory are bytes, or have a suffix b, k, m or g. -1 is no limit.")

    @OptionGroup var global: GlobalOptions

    @Option(
        name: [.long, .short], help: "A JSON file with limits as in config.json (linux.resources); -: standard input.")
    var resources: String?

    @Option(help: "Weight of block I/O, 10 to 1000.")
    var blkioWeight: UInt16?

    @Option(parsing: .unconditional, help: "The period of the CPU limit, microseconds.")
    var cpuPeriod: UInt64?

    @Option(parsing: .unconditional, help: "The CPU time in a period, microseconds.")
    var cpuQuota: Int64?

    @Option(help: "The CPU time that may be used above the quota, microseconds.")
    var cpuBurst: UInt64?

    @Option(name: [.customLong("cpu-share"), .customLong("cpu-shares")], help: "Relative weight; 1024 is one share.")
    var cpuShare: UInt64?

    @Option(help: "The period of the realtime limit, microseconds.")
    var cpuRtPeriod: UInt64?

    @Option(parsing: .unconditional, help: "The realtime CPU time in a period, microseconds.")
    var cpuRtRuntime: Int64?

    @Option(help: "The vCPUs that may be used, as a list.")
    var cpusetCpus: String?

    @Option(help: "The memory nodes that may be used, as a list.")
    var cpusetMems: String?

    @Option(parsing: .unconditional, help: "1: the container runs only when nothing else wants the CPU.")
    var cpuIdle: Int64?

    @Option(parsing: .unconditional, help: "Has no effect, as in other runtimes.")
    var kernelMemory: String?

    @Option(parsing: .unconditional, help: "Has no effect, as in other runtimes.")
    var kernelMemoryTcp: String?

    @Option(name: [.long, .customShort("m")], parsing: .unconditional, help: "Memory.")
    var memory: String?

    @Option(
        parsing: .unconditional,
        help: "Memory below which none is reclaimed from the container if others have more.")
    var memoryReservation: String?

    @Option(parsing: .unconditional, help: "Memory and swap together.")
    var memorySwap: String?

    @Option(parsing: .unconditional, help: "The number of processes.")
    var pidsLimit: Int64?

    @Option(name: [.customLong("l3-cache-schema")], help: "Intel RDT: refused, the guest has none.")
    var l3CacheSchema: String?

    @Option(name: [.customLong("mem-bw-schema")], help: "Intel RDT: refused, the guest has none.")
    var memBwSchema: String?

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        try await global.reporting { _ in
            if l3CacheSchema != nil || memBwSchema != nil { throw SandboxError.unsupported("Intel RDT") }
            try await global.runtime().update(id, limits())
        }
    }

    private func limits() throws -> Linux.Resources {
        if let file = resources {
            let text = try file == "-" ? readText(0, "standard input") : readText(file)
            return try JSON.decode(Linux.Resources.self, from: Array(text.utf8), file: file)
        }
        var limits = Linux.Resources()
        if memory != nil || memoryReservation != nil || memorySwap != nil {
            var amounts = Linux.Resources.Memory()
            amounts.limit = try memory.map { try Self.bytes($0, "--memory") }
            amounts.reservation = try memoryReservation.map { try Self.bytes($0, "--memory-reservation") }
            amounts.swap = try memorySwap.map { try Self.bytes($0, "--memory-swap") }
            limits.memory = amounts
        }
        limits.cpu = cpu
        limits.pids = pidsLimit.map { .init(limit: $0) }
        if let blkioWeight {
            limits.blockIO = .init()
            limits.blockIO?.weight = blkioWeight
        }
        return limits
    }

    /// nil when no option is about it.
    private var cpu: Linux.Resources.CPU? {
        var cpu = Linux.Resources.CPU()
        (cpu.shares, cpu.quota, cpu.burst, cpu.period) = (cpuShare, cpuQuota, cpuBurst, cpuPeriod)
        (cpu.realtimeRuntime, cpu.realtimePeriod, cpu.idle) = (cpuRtRuntime, cpuRtPeriod, cpuIdle)
        (cpu.cpus, cpu.mems) = (cpusetCpus ?? "", cpusetMems ?? "")
        return cpu == .init() ? nil : cpu
    }

    private static func bytes(_ text: String, _ option: String) throws -> Int64 {
        if text == "-1" { return -1 }
        let shifts: [Character: Int64] = ["b": 0, "k": 10, "m": 20, "g": 30, "t": 40]
        var digits = Substring(text.lowercased())
        if digits.count > 2, digits.hasSuffix("ib") { digits = digits.dropLast(2) }
        if digits.count > 2, digits.hasSuffix("b"), shifts[digits.dropLast().last ?? " "] != nil { digits.removeLast() }
        let shift = digits.last.flatMap { shifts[$0] }
        if shift != nil { digits.removeLast() }
        guard let number = Int64(digits), number >= 0,
            case (let bytes, let overflow) = number.multipliedReportingOverflow(
                by: 1 << (shift ?? 0)), !overflow
        else { throw SandboxError.invalid("\(option) \(text): not an amount of memory") }
        return bytes
    }
}
