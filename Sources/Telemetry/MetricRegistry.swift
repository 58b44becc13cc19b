public import CoreMetrics
import Synchronization

/// The backend of swift-metrics in a pod's server: keeps what is counted and observed of the families that there are. Labels that no
/// family has (a library's own metrics) are dropped.
public final class MetricRegistry: MetricsFactory {
    /// That of this process.
    public static let shared = MetricRegistry()

    /// One sample that grows.
    private final class Accumulator: CounterHandler, TimerHandler {
        let family: MetricFamily
        let labels: [String]
        let value: Mutex<MetricReadings.Value>

        init(_ family: MetricFamily, _ labels: [String]) {
            self.family = family
            self.labels = labels
            value = Mutex(
                family.kind == .histogram ? .histogram(Histogram(buckets: family.buckets)) : .number(0))
        }

        private func add(_ amount: Double) {
            value.withLock { value in
                switch value {
                case .number(let sum): value = .number(sum + amount)
                case .histogram(var histogram):
                    histogram.observe(amount, buckets: family.buckets)
                    value = .histogram(histogram)
                }
            }
        }

        func increment(by amount: Int64) { add(Double(amount)) }
        func reset() { value.withLock { $0 = .number(0) } }
        func recordNanoseconds(_ duration: Int64) { add(Double(duration) / 1e9) }
    }

    private struct Key: Hashable {
        var name: String
        var labels: [String]
    }

    private let accumulators = Mutex<[Key: Accumulator]>([:])

    public init() {}

    /// Makes this the backend of the process: once.
    public func bootstrap() { MetricsSystem.bootstrap(self) }

    /// What has been counted so far.
    public func readings() -> MetricReadings {
        var readings = MetricReadings()
        let all = accumulators.withLock { Array($0.values) }.sorted { $0.labels.lexicographicallyPrecedes($1.labels) }
        for sample in all { readings.add(sample.family, sample.labels, sample.value.withLock { $0 }) }
        return readings
    }

    private func accumulator(
        _ kind: MetricFamily.Kind, _ label: String, _ dimensions: [(String, String)]
    ) -> Accumulator? {
        guard let family = MetricFamily.all.first(where: { $0.name == label && $0.kind == kind }),
            dimensions.map(\.0) == family.labels
        else { return nil }
        let key = Key(name: label, labels: dimensions.map(\.1))
        return accumulators.withLock { accumulators in
            if let known = accumulators[key] { return known }
            let new = Accumulator(family, key.labels)
            accumulators[key] = new
            return new
        }
    }

    // MARK: MetricsFactory

    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        accumulator(.counter, label, dimensions) ?? NOOPMetricsHandler.instance
    }

    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        accumulator(.histogram, label, dimensions) ?? NOOPMetricsHandler.instance
    }

    /// Values that are no times and no counts are read when somebody asks for them.
    public func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler { NOOPMetricsHandler.instance }

    // All live as long as the process: their labels have few values.
    public func destroyCounter(_ handler: any CounterHandler) {}
    public func destroyTimer(_ handler: any TimerHandler) {}
    public func destroyRecorder(_ handler: any RecorderHandler) {}
}

extension MetricFamily {
    /// Counts one more.
    ///
    /// - Parameter labels: the values of the family's labels, in their order.
    public func count(_ labels: [String] = []) { counter(labels).increment() }

    /// Counts so many more.
    public func count(_ labels: [String] = [], by amount: UInt64) {
        counter(labels).increment(by: Int64(clamping: amount))
    }

    /// Shows the counter from now on, also while nothing has been counted.
    public func declare(_ labels: [String] = []) { _ = counter(labels) }

    private func counter(_ values: [String]) -> Counter {
        Counter(label: name, dimensions: Array(zip(labels, values)))
    }

    /// Observes a time.
    public func observe(_ labels: [String] = [], nanoseconds: UInt64) {
        Timer(label: name, dimensions: Array(zip(self.labels, labels)))
            .recordNanoseconds(Int64(clamping: nanoseconds))
    }
}
