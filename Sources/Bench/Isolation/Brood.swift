import CLinux
import Glibc
import LinuxSystem

/// The processes that a runtime has brought up: all new descendants of this process, which adopts those that lose their parent.
struct Brood: Sendable {
    /// Descendants that were there before: none of a runtime's.
    private let others: Set<Int32>

    /// Makes this process the parent of descendants that lose theirs (PR_SET_CHILD_SUBREAPER, prctl(2)). So all that a runtime
    /// leaves in the background can be found.
    init() throws {
        try check("prctl", "PR_SET_CHILD_SUBREAPER", martlet_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        others = Set(Self.descendants())
    }

    /// All that run now.
    func members() -> [Int32] { Self.descendants().filter { !others.contains($0) && ProcessStatus.isRunning($0) } }

    private static func descendants() -> [Int32] {
        Array(PodProcesses.descendants(of: getpid(), among: PodProcesses.all()).dropFirst())
    }

    /// The time between the start of containers and the reading of their memory.
    private static let settleTime = Duration.milliseconds(300)

    /// The memory of all that run, MiB, when what a start still does has become quiet.
    func memoryAtRest() -> Double {
        usleep(UInt32(Self.settleTime / .microseconds(1)))
        return Self.memory(of: members())
    }

    /// The memory of processes, MiB: private pages, and of each page that several processes have its share (Pss). A machine's memory
    /// is a file in memory that its processes map, so it is in the sum.
    ///
    /// Source: Documentation/ABI/testing/procfs-smaps_rollup.
    static func memory(of processes: [Int32]) -> Double {
        Double(processes.map { proportionalKiB((try? readText("/proc/\($0)/smaps_rollup")) ?? "") }.reduce(0, +)) / 1024
    }

    static func proportionalKiB(_ rollup: String) -> Int {
        for line in rollup.split(separator: "\n") where line.hasPrefix("Pss:") {
            return line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        }
        return 0
    }

    /// Ends all that still run, and takes the exit codes of those that this process has adopted.
    ///
    /// - Parameter patience: how long they have to end by themselves.
    /// - Returns: the names of those that had to be ended.
    func end(patience: Duration) -> [String] {
        let deadline = ContinuousClock.now + patience
        while !members().isEmpty, ContinuousClock.now < deadline {
            reap()
            usleep(5000)
        }
        let left = members()
        let names = left.map {
            (try? readText("/proc/\($0)/comm"))?.split(separator: "\n").first.map(String.init) ?? "\($0)"
        }
        for process in left { kill(process, SIGKILL) }
        let last = ContinuousClock.now + .seconds(5)
        while !members().isEmpty, ContinuousClock.now < last {
            reap()
            usleep(5000)
        }
        reap()
        return names
    }

    /// Takes the exit codes of adopted processes that have ended. Those of processes that this one has started have been taken by
    /// then, as it has waited for them.
    private func reap() {
        let own = getpid()
        for entry in PodProcesses.all()
        where entry.parent == own && !others.contains(entry.pid) && !ProcessStatus.isRunning(entry.pid) {
            waitpid(entry.pid, nil, WNOHANG)
        }
    }
}
