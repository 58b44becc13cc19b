import AgentAPI
import Glibc
import LinuxSystem

extension AgentListProcessesResponse.Process {
    /// The longest command line that is reported, bytes.
    private static let longestCommand = 1024

    /// A process as /proc has it, proc(5); nil when it has ended.
    init?(running pid: UInt32) {
        guard let status = try? readText("/proc/\(pid)/status") else { return nil }
        let fields = status.split(separator: "\n").reduce(into: [Substring: Substring]()) { fields, line in
            let parts = line.split(separator: ":\t", maxSplits: 1)
            if parts.count == 2 { fields[parts[0]] = parts[1] }
        }
        self.init()
        self.pid = pid
        userID = fields["Uid"]?.split(separator: "\t").first.flatMap { UInt32($0) } ?? 0
        let arguments = (try? readText("/proc/\(pid)/cmdline"))?.split(separator: "\0") ?? []
        command = arguments.isEmpty ? "[\(fields["Name"] ?? "")]" : arguments.joined(separator: " ")
        if command.utf8.count > Self.longestCommand {
            command = String(decoding: command.utf8.prefix(Self.longestCommand), as: UTF8.self)
        }
        readStatistics()
    }

    /// What /proc/PID/stat has, proc(5).
    private mutating func readStatistics() {
        let fields = (ProcessStatus.fields(of: Int32(bitPattern: pid)) ?? []).map { UInt64($0) ?? 0 }
        guard fields.count > 19 else { return }
        let tick = 1_000_000_000 / UInt64(sysconf(Int32(_SC_CLK_TCK)))
        parent = UInt32(clamping: fields[1])
        let device = fields[4]
        // Major numbers of pseudo-terminals (Documentation/admin-guide/devices.txt).
        if (136...143).contains(device >> 8 & 0xfff) { terminal = "pts/\(device & 0xff | device >> 12 & 0xfff00)" }
        cpuTime = (fields[11] + fields[12]) * tick
        var now = timespec()
        clock_gettime(CLOCK_BOOTTIME, &now)
        let uptime = UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
        age = uptime - min(uptime, fields[19] * tick)
    }
}
