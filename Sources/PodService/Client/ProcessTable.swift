import Glibc
import TaskAPI

extension Runtime {
    /// The processes of a container in the guest as `ps -ef` has them; the first row is the heading.
    public func processTable(_ id: String) async throws -> [[String]] {
        try await [["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]] + processes(id).map(processRow)
    }
}

/// A process as `ps -ef` has it.
func processRow(_ process: PodProcess) -> [String] {
    let second: UInt64 = 1_000_000_000
    // The share of its life that it had a CPU, percent.
    let share = process.age == 0 ? 0 : Int(min(99, Double(process.cpuTime) * 100 / Double(process.age)))
    var start = time(nil) - time_t(clamping: process.age / second)
    var parts = tm()
    localtime_r(&start, &parts)
    var clock = [CChar](repeating: 0, count: 16)
    strftime(&clock, clock.count, process.age < 86_400 * second ? "%H:%M" : "%b%d", &parts)
    let cpu = process.cpuTime / second
    let time = [cpu / 3600, cpu / 60 % 60, cpu % 60].map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ":")
    return [
        process.userID == 0 ? "root" : "\(process.userID)", "\(process.pid)", "\(process.parent)", "\(share)",
        String(decoding: clock.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self),
        process.terminal.isEmpty ? "?" : process.terminal, time, process.command,
    ]
}
