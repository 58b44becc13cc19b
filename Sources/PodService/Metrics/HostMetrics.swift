import Glibc
import NIOCore
import Sandbox
public import Telemetry

/// The metrics of all pods of this host, and of the host itself.
public struct HostMetrics: Sendable {
    /// How long a pod's server may take.
    private static let limit = TimeAmount.seconds(5)
    /// How many pods are asked at once.
    private static let breadth = 16

    private let root: String

    /// - Parameter root: `paths.root`.
    public init(root: String) throws {
        self.root = root
        guard geteuid() == 0 else {
            throw SandboxError.invalid("martlet metrics must be run as root (user id 0, not \(geteuid()))")
        }
    }

    /// The metrics now. A pod whose server does not answer is counted and left out.
    public func text(_ format: MetricFormat) async -> String {
        let pods = PodList.all(root: root)
        var texts = MetricTexts()
        var states = ["running": 0, "unreachable": 0, "dead": pods.count { !$0.isRunning }]
        await withTaskGroup(of: (index: Int, text: String?).self) { group in
            var left = pods.filter(\.isRunning).enumerated().makeIterator()
            func ask() {
                guard let (index, pod) = left.next() else { return }
                group.addTask { (index, await Self.metrics(of: pod, format)) }
            }
            for _ in 0..<Self.breadth { ask() }
            var answers: [(index: Int, text: String?)] = []
            for await answer in group {
                answers.append(answer)
                ask()
            }
            for answer in answers.sorted(by: { $0.index < $1.index }) {
                states[answer.text == nil ? "unreachable" : "running", default: 0] += 1
                if let text = answer.text { texts.add(text) }
            }
        }
        var own = MetricReadings()
        for (state, count) in states { own.add(.pods, [state], UInt64(count)) }
        for (cause, count) in EndTally(root: root).read() { own.add(.podEnds, [cause], count) }
        texts.add(own.text(format))
        return texts.text(format)
    }

    /// - Returns: empty while the pod's server has yet to listen; nil when it does not answer.
    private static func metrics(of pod: PodEntry, _ format: MetricFormat) async -> String? {
        guard let path = pod.metrics else { return "" }
        return try? await MetricsClient.metrics(at: path, format, within: limit)
    }
}
