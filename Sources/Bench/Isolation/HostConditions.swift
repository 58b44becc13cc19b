import Glibc
import LinuxSystem

/// What of a host makes measurements doubtful.
struct HostConditions: Sendable, Equatable {
    /// The governors of the processors' frequency that are not `performance`.
    var governors: Set<String> = []
    /// The time that the host of this virtual machine gave to others, and all time, of all CPUs, in ticks.
    var stolen: UInt64 = 0
    var total: UInt64 = 0
    var swapKiB = 0
    /// The mean of the last minute.
    var load = 0.0
    var processors = 0
    var model = ""
    var isVirtualMachine = false
    var memoryKiB = 0
    /// Of that, what programs can still have.
    var availableKiB = 0

    /// Reads /proc and /sys.
    ///
    /// - Parameter root: where these are.
    /// - Sources: proc(5); Documentation/admin-guide/pm/cpufreq.rst.
    static func read(root: String = "") -> HostConditions {
        var conditions = HostConditions()
        let directory = "\(root)/sys/devices/system/cpu"
        for name in (try? directoryNames(directory)) ?? [] where name.hasPrefix("cpu") && Int(name.dropFirst(3)) != nil
        {
            if let text = try? readText("\(directory)/\(name)/cpufreq/scaling_governor") {
                conditions.governors.formUnion(text.split(whereSeparator: \.isWhitespace).map(String.init))
            }
        }
        conditions.governors.remove("performance")
        let times =
            lines("\(root)/proc/stat").first { $0.hasPrefix("cpu ") }?.split(separator: " ").dropFirst()
            .compactMap { UInt64($0) } ?? []
        if times.count > 7 {
            conditions.stolen = times[7]
            // The times of guests are in the others already.
            conditions.total = times.prefix(8).reduce(0, &+)
        }
        let memory = lines("\(root)/proc/meminfo")
        func kibibytes(_ field: String) -> Int {
            memory.first { $0.hasPrefix(field + ":") }?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        }
        conditions.swapKiB = max(0, kibibytes("SwapTotal") - kibibytes("SwapFree"))
        conditions.memoryKiB = kibibytes("MemTotal")
        conditions.availableKiB = kibibytes("MemAvailable")
        conditions.load = lines("\(root)/proc/loadavg").first?.split(separator: " ").first.flatMap { Double($0) } ?? 0
        for line in lines("\(root)/proc/cpuinfo") {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.split(whereSeparator: \.isWhitespace) }
            guard let key = parts.first?.joined(separator: " ") else { continue }
            let value = parts.count > 1 ? parts[1] : []
            switch key {
            case "processor": conditions.processors += 1
            case "model name": conditions.model = value.joined(separator: " ")
            case "flags": if value.contains("hypervisor") { conditions.isVirtualMachine = true }
            default: break
            }
        }
        return conditions
    }

    /// How much of the memory programs can't have any more, as a part of it.
    var usedPart: Double { memoryKiB > 0 ? 1 - Double(availableKiB) / Double(memoryKiB) : 1 }

    private static func lines(_ path: String) -> [Substring] {
        ((try? readText(path, limit: 4 << 20)) ?? "").split(whereSeparator: \.isNewline)
    }

    /// What emulates this host's own processor; nil: nothing that it shows.
    var emulator: String? { model.contains("QEMU") || model.contains("TCG") ? model : nil }

    /// What a reader has to know before the figures, from the beginning of a bench to its end.
    ///
    /// - Parameters:
    ///   - kvmObjection: why KVM runs no machines here; nil where it does.
    static func warnings(from begin: HostConditions, to end: HostConditions, kvmObjection: String?) -> [String] {
        var warnings: [String] = []
        let governors = begin.governors.union(end.governors)
        if !governors.isEmpty {
            warnings.append(
                "the processors' frequency changes: cpufreq governor \(governors.sorted().joined(separator: ", ")), not performance"
            )
        }
        let total = end.total &- begin.total
        if total > 0, end.stolen > begin.stolen {
            let share = Double(end.stolen - begin.stolen) * 100 / Double(total)
            if share >= 0.1 {
                warnings.append(
                    "the host of this virtual machine took \(Figures.fixed(share, 1)) % of the CPU time (steal)")
            }
        }
        let swap = max(begin.swapKiB, end.swapKiB)
        if swap > 0 { warnings.append("swap is in use: \(Figures.short(Double(swap) / 1024)) MiB") }
        // Of the load at the end, the bench itself is about one.
        if max(begin.load, end.load) > Double(begin.processors) {
            warnings.append(
                "other work ran: load \(Figures.fixed(begin.load, 2)) at the start, \(Figures.fixed(end.load, 2)) at the end, on "
                    + "\(begin.processors) CPUs")
        }
        if begin.isVirtualMachine, let kvmObjection {
            warnings.append("this host is a virtual machine without KVM of its own (\(kvmObjection))")
        }
        return warnings
    }

    /// The line above all figures where a clock is an emulator's.
    static func banner(host: HostConditions, runtimes: [OCIRuntime]) -> String? {
        if let emulator = host.emulator {
            return
                "THE EMULATOR'S CLOCK: this host's processor is emulated (\(emulator)). No figure says what hardware would do."
        }
        let emulated = runtimes.compactMap { runtime in runtime.emulator.map { (runtime.name, $0) } }
        guard let emulator = emulated.first?.1 else { return nil }
        let names = emulated.map(\.0).joined(separator: ", ")
        return
            "THE EMULATOR'S CLOCK: \(names) ran on \(emulator). Its figures are the emulator's, and say nothing of hardware with KVM."
    }
}
