import Glibc
import LinuxSystem

/// What pods that idle at the same time take of the host, so that memory that they share counts as shared.
public struct IdlePods: Sendable, Codable {
    public var pods: Int
    /// From the first command until every container has written something, milliseconds.
    public var startTime: Double
    /// Why pods did not start.
    public var failures: [String]
    /// Means of a pod, KiB: what its host processes alone have, and with a share of what they share, without guest memory.
    public var privateKiB: Int
    public var proportionalKiB: Int
    /// Means of a pod, KiB: the guest's memory that it alone has, and what it has together with others.
    public var guestOwnKiB: Int
    public var guestSharedKiB: Int

    private enum CodingKeys: String, CodingKey {
        case pods, failures
        case startTime = "start_ms"
        case privateKiB = "private_kib"
        case proportionalKiB = "proportional_kib"
        case guestOwnKiB = "guest_own_kib"
        case guestSharedKiB = "guest_shared_kib"
    }

    /// Starts `count` pods at once, as the configuration says, and ends them.
    static func measure(
        _ count: Int, martlet: String, bundle: String, root: String, configuration: String?, timeout: Duration
    ) throws -> (pods: IdlePods, first: [ProcessMemory]) {
        let begin = monotonicNanoseconds()
        var started: [ServingPod] = []
        defer { for pod in started { pod.end() } }
        for number in 1...count {
            started.append(
                try ServingPod(
                    martlet: martlet, id: "bench-\(getpid())-\(number)", bundle: bundle, configuration: configuration,
                    root: root))
        }
        var failures: [String] = []
        var running: [[ProcessMemory]] = []
        for pod in started {
            do { try pod.waitForMessage(timeout) } catch { failures.append("\(error)") }
        }
        let startTime = Double(monotonicNanoseconds() - begin) / 1e6
        for pod in started {
            if let memory = try? pod.state().processes.map({ try ProcessMemory(process: $0.name, pid: $0.pid) }) {
                running.append(memory)
            }
        }
        guard let first = running.first else { throw BenchError("no pod started: \(failures.first ?? "")") }
        let totals = running.map(\.total)
        func mean(_ value: (ProcessMemory) -> Int) -> Int { totals.map(value).reduce(0, +) / totals.count }
        let pods = IdlePods(
            pods: count, startTime: startTime, failures: failures, privateKiB: mean(\.privateKiB),
            proportionalKiB: mean(\.proportionalKiB), guestOwnKiB: mean(\.guestOwnKiB),
            guestSharedKiB: mean { $0.guestKiB - $0.guestOwnKiB })
        return (pods, first)
    }
}
