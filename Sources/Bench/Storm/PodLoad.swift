import Glibc
import LinuxSystem

/// What the host's processes of a pod use, without the guest's memory, and how much of it they may.
final class PodLoad {
    struct Amount: Equatable {
        /// Bytes.
        var memory = 0
        var threads = 0
    }

    /// Of the samples so far.
    private(set) var maximum = Amount()
    /// Of the pod's cgroup, without what the guest may have. nil: none.
    let limits: (memory: Int?, threads: Int?)
    private let processes: [Int32]

    /// - Parameter guestMemory: bytes.
    init(_ state: ServingPod.State, guestMemory: Int) {
        processes = state.processes.map(\.pid)
        // A directory for each controller of version 1, or one for all of version 2.
        func limit(_ names: String...) -> Int? {
            let paths = state.cgroups.flatMap { directory in names.map { "\(directory)/\($0)" } }
            return paths.lazy.compactMap { try? readText($0) }.compactMap { Int($0.dropLast()) }.first
        }
        limits = (limit("memory.max", "memory.limit_in_bytes").map { $0 - guestMemory }, limit("pids.max"))
    }

    /// Reads the use of all processes once.
    ///
    /// - Throws: `BenchError` where one of them has ended.
    func sample() throws {
        let sum = try processes.reduce(into: Amount()) { sum, pid in
            guard let status = try? readText("/proc/\(pid)/status"), let amount = Self.amount(status: status) else {
                throw BenchError("process \(pid) of the storming pod has ended")
            }
            sum.memory += amount.memory
            sum.threads += amount.threads
        }
        maximum.memory = max(maximum.memory, sum.memory)
        maximum.threads = max(maximum.threads, sum.threads)
    }

    /// Reads /proc/PID/status (proc(5)). The guest's memory is a shared file of memory, which RssShmem counts.
    ///
    /// - Returns: nil where a field is missing, as with a process that has ended.
    static func amount(status: String) -> Amount? {
        var fields: [Substring: Int] = [:]
        for line in status.split(separator: "\n") {
            let words = line.split { $0 == ":" || $0 == "\t" || $0 == " " }
            if words.count > 1, let number = Int(words[1]) { fields[words[0]] = number }
        }
        guard let anonymous = fields["RssAnon"], let file = fields["RssFile"], let threads = fields["Threads"] else {
            return nil
        }
        return Amount(memory: (anonymous + file) << 10, threads: threads)
    }
}
