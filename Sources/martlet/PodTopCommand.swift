import ArgumentParser
import Glibc
import LinuxSystem
import Sandbox

struct PodTopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show what the pods of this host use, again and again: CPU, memory, disk.",
        discussion: "A CPU that is used all the time is 100 %. Memory that processes share is divided among them.")

    @OptionGroup var global: GlobalOptions

    @Option(name: .shortAndLong, help: "Seconds between two tables.")
    var interval = 2

    @Option(name: .shortAndLong, help: "How many tables are shown; until it is interrupted when not given.")
    var count: Int?

    func validate() throws {
        guard (1...3600).contains(interval) else { throw ValidationError("--interval: from 1 to 3600") }
        guard (count ?? 1) > 0 else { throw ValidationError("--count: from 1") }
    }

    func run() async throws {
        try await global.reporting { _ in
            let root = try global.stateRoot()
            var (before, time) = (PodUsage.all(root: root), monotonicNanoseconds())
            var shown = 0
            while count.map({ shown < $0 }) ?? true {
                try await Task.sleep(for: .seconds(interval))
                let (now, end) = (PodUsage.all(root: root), monotonicNanoseconds())
                // The top of an empty screen.
                if isatty(STDOUT_FILENO) == 1 { print("\u{1b}[H\u{1b}[J", terminator: "") }
                printTable(Self.rows(now, since: before, seconds: Double(end - time) / 1e9))
                fflush(nil)
                (before, time) = (now, end)
                shown += 1
            }
        }
    }

    /// The pods that use most of the CPU come first.
    private static func rows(_ now: [PodUsage], since before: [PodUsage], seconds: Double) -> [[String]] {
        let pods = now.map { pod in
            let earlier = before.first { $0.pod == pod.pod }
            // Processes that have ended take their counters with them.
            func rate(_ field: (PodUsage) -> UInt64) -> Double {
                guard let start = earlier.map(field), field(pod) > start else { return 0 }
                return Double(field(pod) - start) / seconds
            }
            return (pod: pod, cpu: rate(\.cpu) / 1e4, read: rate(\.read), written: rate(\.written))
        }
        return [["POD", "CPU %", "MEMORY MIB", "READ KIB/S", "WRITTEN KIB/S"]]
            + pods.sorted { ($1.cpu, $0.pod.pod) < ($0.cpu, $1.pod.pod) }.map { row in
                [
                    row.pod.pod, tenths(row.cpu), "\(row.pod.memory >> 20)", tenths(row.read / 1024),
                    tenths(row.written / 1024),
                ]
            }
    }

    private static func tenths(_ value: Double) -> String {
        let number = Int((value * 10).rounded())
        return "\(number / 10).\(number % 10)"
    }
}
