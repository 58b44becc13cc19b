import Testing

@testable import Telemetry

/// The text forms, byte for byte. A test of the end-to-end tests has promtool read the first.
@Suite struct MetricTextTests {
    private static let readings: MetricReadings = {
        var readings = MetricReadings()
        readings.add(.processCPU, ["vmm", "user"], 1.5)
        readings.add(.processCPU, ["server", "user"], 2.0)
        readings.add(.podContainers, ["running"], UInt64(3))
        var histogram = Histogram(buckets: MetricFamily.heartbeat.buckets)
        for value in [0.0001, 0.003, 7] { histogram.observe(value, buckets: MetricFamily.heartbeat.buckets) }
        readings.add(.heartbeat, [], histogram)
        return readings
    }()

    @Test func prometheusHasTheSuffixInTheFamilysName() {
        let text = Self.readings.text(.prometheus, common: [("pod", "a\"b\\c\nd")])
        let pod = #"pod="a\"b\\c\nd""#
        #expect(
            text.hasPrefix(
                """
                # HELP martlet_pod_containers The pod's containers by their states.
                # TYPE martlet_pod_containers gauge
                martlet_pod_containers{\(pod),state="running"} 3
                # HELP martlet_agent_heartbeat_seconds How long the guest's agent took to send a heartbeat back.
                # TYPE martlet_agent_heartbeat_seconds histogram
                martlet_agent_heartbeat_seconds_bucket{\(pod),le="0.0001"} 1

                """), "\(text)")
        #expect(
            text.hasSuffix(
                """
                martlet_agent_heartbeat_seconds_bucket{\(pod),le="5"} 2
                martlet_agent_heartbeat_seconds_bucket{\(pod),le="+Inf"} 3
                martlet_agent_heartbeat_seconds_sum{\(pod)} 7.0031
                martlet_agent_heartbeat_seconds_count{\(pod)} 3
                # HELP martlet_host_process_cpu_seconds_total \(MetricFamily.processCPU.help)
                # TYPE martlet_host_process_cpu_seconds_total counter
                martlet_host_process_cpu_seconds_total{\(pod),process="server",mode="user"} 2
                martlet_host_process_cpu_seconds_total{\(pod),process="vmm",mode="user"} 1.5

                """), "\(text)")
    }

    @Test func openMetricsHasUnitsAndAnEnd() {
        let text = Self.readings.text(.openmetrics)
        #expect(
            text.hasSuffix(
                """
                # HELP martlet_host_process_cpu_seconds \(MetricFamily.processCPU.help)
                # TYPE martlet_host_process_cpu_seconds counter
                # UNIT martlet_host_process_cpu_seconds seconds
                martlet_host_process_cpu_seconds_total{process="server",mode="user"} 2
                martlet_host_process_cpu_seconds_total{process="vmm",mode="user"} 1.5
                # EOF

                """), "\(text)")
        #expect(text.contains("_bucket{le=\"5.0\"} 2\n"), "a bound is a float")
    }

    @Test(arguments: MetricFormat.allCases) func textsOfSeveralPodsHaveEachFamilyOnce(_ format: MetricFormat) {
        var texts = MetricTexts()
        for pod in ["a", "b"] { texts.add(Self.readings.text(format, common: [("pod", pod)])) }
        texts.add("")
        texts.add("nonsense\n# HELP\n")
        let lines = texts.text(format).split(separator: "\n")
        #expect(lines.filter { $0.hasPrefix("# TYPE ") }.count == 3)
        #expect(Set(lines).count == lines.count, "no line comes twice")
        #expect(lines.filter { $0.hasPrefix("martlet_pod_containers{") }.map { $0.suffix(1) } == ["3", "3"])
        #expect(lines.filter { $0 == "# EOF" }.count == (format == .openmetrics ? 1 : 0))
        // The samples of a family stand together.
        let families = lines.filter { !$0.hasPrefix("#") }.map {
            $0.prefix { $0 != "{" && $0 != " " }.replacing(/_(bucket|sum|count)$/, with: "")
        }
        var seen: [Substring] = []
        for family in families where seen.last != family { seen.append(family) }
        #expect(Set(seen).count == seen.count)
    }

    @Test func numbersAreShort() {
        var readings = MetricReadings()
        for (index, value) in [0, -1, 1e15, 1e300, 0.1, .infinity, .nan].enumerated() {
            readings.add(.pods, ["\(index)"], value)
        }
        let values = readings.text(.prometheus).split(separator: "\n").dropFirst(2).map { $0.split(separator: " ")[1] }
        #expect(values == ["0", "-1", "1000000000000000", "1e+300", "0.1", "+Inf", "NaN"])
    }

    @Test(arguments: [
        ([], MetricFormat.prometheus), (["*/*"], .prometheus), (["text/plain"], .prometheus),
        (["application/openmetrics-text; version=1.0.0"], .openmetrics),
        (["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"], .openmetrics),
        (["text/plain", "Application/OpenMetrics-Text"], .openmetrics),
        (["application/openmetrics-text;q=0, text/plain"], .prometheus),
    ])
    func theClientChooses(_ accept: [String], _ format: MetricFormat) {
        #expect(MetricFormat(accept: accept) == format)
    }
}
