import Glibc
import GuestSystem
import LinuxSystem

/// The files of a cgroup (cgroup-v2.rst, Interface Files).
extension Cgroup {
    /// Of a file with one number; "max" is the largest. nil where there is no such file.
    func number(_ file: String) -> UInt64? {
        guard let text = try? readText("\(path)/\(file)") else { return nil }
        return Self.number(text.split(whereSeparator: \.isWhitespace).first)
    }

    /// Of a file with a name and a number in each line; empty where there is no such file.
    func numbers(_ file: String) -> [String: UInt64] {
        guard let text = try? readText("\(path)/\(file)") else { return [:] }
        return Self.numbers(text)
    }

    static func numbers(_ text: String) -> [String: UInt64] {
        var numbers: [String: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count == 2, let value = number(fields[1]) { numbers[String(fields[0])] = value }
        }
        return numbers
    }

    static func number(_ text: Substring?) -> UInt64? {
        guard let text else { return nil }
        return text == "max" ? .max : UInt64(text)
    }

    /// Blocks until the numbers of `file`, one whose changes the kernel reports, meet the condition, or the time is over; answers
    /// whether they are. Throws when the file is gone.
    func wait(
        _ file: String, within limit: Duration, until condition: ([String: UInt64]) -> Bool
    ) throws(SystemError) -> Bool {
        let name = "\(path)/\(file)"
        let descriptor = try OwnedDescriptor.open(name, O_RDONLY)
        let clock = ContinuousClock()
        let end = clock.now + limit
        while true {
            try LinuxSystem.check("lseek", name, lseek(descriptor.raw, 0, SEEK_SET))
            if condition(Self.numbers(try readText(descriptor.raw, name))) { return true }
            let left = end - clock.now
            if left <= .zero { return false }
            let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1
            var item = pollfd(fd: descriptor.raw, events: Int16(POLLPRI), revents: 0)
            poll(&item, 1, Int32(clamping: milliseconds))
        }
    }

    /// Stops every process in it and below, and waits until they stand; a process that is killed goes all the same.
    func freeze(within limit: Duration) throws(AgentFailure) {
        try during("freeze") {
            try writeText("1", to: "\(path)/cgroup.freeze")
            if try wait("cgroup.events", within: limit, until: { $0["frozen"] == 1 }) { return }
            try writeText("0", to: "\(path)/cgroup.freeze")
            throw AgentFailure(.deadlineExceeded, "its processes do not stand after \(limit)")
        }
    }

    /// Lets them go on.
    func thaw(within limit: Duration) throws(AgentFailure) {
        try during("thaw") {
            try writeText("0", to: "\(path)/cgroup.freeze")
            if try wait("cgroup.events", within: limit, until: { $0["frozen"] == 0 }) { return }
            throw AgentFailure(.deadlineExceeded, "its processes still stand after \(limit)")
        }
    }

    /// Blocks until the kernel has killed more than `seen` of its processes because memory ran out, or the cgroup is gone; answers
    /// how many it has.
    func waitOOM(seen: UInt64) throws(AgentFailure) -> UInt64 {
        guard access("\(path)/memory.events", F_OK) == 0 else {
            throw AgentFailure(.failedPrecondition, "the guest's cgroups have no memory.events")
        }
        var kills = seen
        do {
            // The file's removal is not reported: check from time to time.
            while try !wait(
                "memory.events", within: .seconds(1),
                until: {
                    kills = $0["oom_kill"] ?? 0
                    return kills > seen
                })
            {}
        } catch  where access(path, F_OK) != 0 {
            return kills
        } catch {
            throw AgentFailure(error)
        }
        return kills
    }
}
