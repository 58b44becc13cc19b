import Glibc

/// Fields of /proc/PID/stat (proc(5)).
public enum ProcessStatus {
    /// The start time of a process, clock ticks after boot; nil when there is no such process.
    public static func startTime(of pid: Int32) -> UInt64? { number(19, of: pid) }

    /// The pid of a process's parent; nil when there is no such process.
    public static func parent(of pid: Int32) -> Int32? { number(1, of: pid) }

    /// Whether a process is there, and more than what its parent has not asked for yet.
    public static func isRunning(_ pid: Int32) -> Bool {
        guard let state = fields(of: pid)?.first else { return false }
        return !["Z", "X"].contains(state)
    }

    /// The fields after the name: field 3 has index 0. nil when there is no such process.
    public static func fields(of pid: Int32) -> [Substring]? {
        guard let text = try? readText("/proc/\(pid)/stat") else { return nil }
        // The name, field 2, may contain spaces and parentheses: count from its end.
        guard let name = text.lastIndex(of: ")") else { return nil }
        return text[text.index(after: name)...].split(separator: " ")
    }

    private static func number<N: FixedWidthInteger>(_ index: Int, of pid: Int32) -> N? {
        guard let fields = fields(of: pid), fields.count > index else { return nil }
        return N(fields[index])
    }
}
