import Glibc

/// What the kernel says of a process in /proc/PID/stat, proc(5).
public enum ProcessStatus {
    /// When it started, clock ticks after boot; nil when there is no such process.
    public static func startTime(of pid: Int32) -> UInt64? { number(19, of: pid) }

    /// The number of its parent; nil when there is no such process.
    public static func parent(of pid: Int32) -> Int32? { number(1, of: pid) }

    /// A number by its place behind the name: field 3 is 0.
    private static func number<N: FixedWidthInteger>(_ place: Int, of pid: Int32) -> N? {
        guard let text = try? readText("/proc/\(pid)/stat") else { return nil }
        // The name, field 2, may hold spaces and parentheses: count from behind it.
        guard let name = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: name)...].split(separator: " ")
        return fields.count > place ? N(fields[place]) : nil
    }
}
