import Glibc
import GuestSystem
import LinuxSystem

/// What the files of a cgroup say (cgroup-v2.rst, Interface Files).
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
            let words = line.split(separator: " ")
            if words.count == 2, let value = number(words[1]) { numbers[String(words[0])] = value }
        }
        return numbers
    }

    static func number(_ word: Substring?) -> UInt64? {
        guard let word else { return nil }
        return word == "max" ? .max : UInt64(word)
    }

    /// Blocks until the numbers of `file`, one whose changes the kernel tells of, are as wanted, or the time is over; answers
    /// whether they are. Throws when the file is gone.
    func wait(
        _ file: String, within limit: Duration, until wanted: ([String: UInt64]) -> Bool
    ) throws(SystemError) -> Bool {
        let name = "\(path)/\(file)"
        let descriptor = try OwnedDescriptor.open(name, O_RDONLY)
        let clock = ContinuousClock()
        let end = clock.now + limit
        while true {
            try LinuxSystem.check("lseek", name, lseek(descriptor.raw, 0, SEEK_SET))
            if wanted(Self.numbers(try readText(descriptor.raw, name))) { return true }
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

    /// Blocks until the kernel has killed more than `seen` of its processes for want of memory, or the cgroup is gone; answers
    /// how many it has.
    func waitOOM(seen: UInt64) throws(AgentFailure) -> UInt64 {
        guard access("\(path)/memory.events", F_OK) == 0 else {
            throw AgentFailure(.failedPrecondition, "the guest's cgroups have no memory.events")
        }
        var kills = seen
        do {
            // Nobody is told when the file goes: look now and then.
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
