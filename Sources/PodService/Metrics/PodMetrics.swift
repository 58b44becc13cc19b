import Sandbox
import Telemetry

/// A pod's metrics at a socket of its own.
struct PodMetrics: Sendable {
    private let server: MetricsServer
    private let path: String

    /// Has the pod's server answer for its metrics from now on. Where it can't, the log says so.
    static func serve(_ pod: Pod, _ environment: PodEnvironment) async -> PodMetrics? {
        guard let path = environment.metricsPath else { return nil }
        let labels = [("namespace", environment.namespace), ("pod", environment.id)]
        let reader = PodReader(pod, labels.filter { !$0.1.isEmpty })
        let server = MetricsServer { await reader.text($0) }
        do {
            try await server.serve(unixPath: path)
            return PodMetrics(server: server, path: path)
        } catch {
            environment.logger.warning("metrics can't be read at \(path): \(error)")
            return nil
        }
    }

    func stop() async { await server.stop() }
}

/// Reads a pod's metrics once at a time, however many clients ask: who asks while they are read gets the same.
private actor PodReader {
    private let pod: Pod
    private let labels: [(String, String)]
    private var reading: Task<MetricReadings, Never>?

    init(_ pod: Pod, _ labels: [(String, String)]) { (self.pod, self.labels) = (pod, labels) }

    func text(_ format: MetricFormat) async -> String {
        let task = reading ?? Task { [pod] in await pod.readings() }
        reading = task
        let readings = await task.value
        if reading == task { reading = nil }
        return readings.text(format, common: labels)
    }
}
