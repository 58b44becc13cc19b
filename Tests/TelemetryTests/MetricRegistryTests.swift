import CoreMetrics
import Testing

@testable import Telemetry

/// swift-metrics' instruments end in the registry.
@Suite struct MetricRegistryTests {
    private let registry = MetricRegistry()

    @Test func countersAddUpByTheirLabels() {
        for (cause, amount) in [("error", 2), ("success", 1), ("error", 3)] {
            Counter(label: "martlet_container_ends", dimensions: [("cause", cause)], factory: registry)
                .increment(by: amount)
        }
        let text = registry.readings().text(.prometheus)
        #expect(text.contains("martlet_container_ends_total{cause=\"error\"} 5\n"))
        #expect(text.contains("martlet_container_ends_total{cause=\"success\"} 1\n"))
    }

    @Test func timesBecomeAHistogram() {
        let timer = Timer(label: "martlet_agent_heartbeat_seconds", dimensions: [], factory: registry)
        timer.recordMicroseconds(Int64(150))
        timer.recordSeconds(Int64(2))
        let text = registry.readings().text(.prometheus)
        #expect(text.contains("_bucket{le=\"0.0001\"} 0\n") && text.contains("_bucket{le=\"0.0002\"} 1\n"))
        #expect(text.contains("_bucket{le=\"1\"} 1\n") && text.contains("_bucket{le=\"5\"} 2\n"))
        #expect(text.contains("_sum 2.00015\n") && text.contains("_count 2\n"))
    }

    /// A library's metrics, and labels that a family does not have, can't bring samples in.
    @Test func whatIsUnknownIsDropped() {
        Counter(label: "martlet_container_ends", dimensions: [("id", "x")], factory: registry).increment()
        Counter(label: "other", dimensions: [], factory: registry).increment()
        Timer(label: "martlet_container_ends", dimensions: [("cause", "error")], factory: registry)
            .recordNanoseconds(1)
        Recorder(label: "martlet_pods", dimensions: [("state", "dead")], aggregate: false, factory: registry).record(1)
        #expect(registry.readings().text(.prometheus).isEmpty)
    }

    @Test func manyThreadsLoseNothing() async {
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { [registry] in
                    for _ in 0..<1000 {
                        Counter(label: "martlet_container_restarts", dimensions: [], factory: registry).increment()
                    }
                }
            }
        }
        #expect(registry.readings().text(.prometheus).hasSuffix("martlet_container_restarts_total 8000\n"))
    }
}
