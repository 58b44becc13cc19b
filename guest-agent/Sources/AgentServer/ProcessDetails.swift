import AgentAPI
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
    }
}
