/// One thing that `martlet bench isolation` measures.
struct IsolationMeasure: Sendable, Equatable {
    /// What is done to get it. One turn of a runtime gives all measures of a kind.
    enum Turn: String, Sendable, CaseIterable {
        case start, whole, pair, load, podman, containerd, docker, request, redis, postgres, ten, fifty, density

        /// How many rounds have it, without a warm-up; nil: as many as are wanted. Many containers at once take long, and
        /// differ little; memory does not depend on warm caches.
        var rounds: Int? {
            switch self {
            case .ten: 3
            case .fifty, .density: 1
            default: nil
            }
        }
    }

    /// How a phase of the container's work becomes a figure.
    enum Conversion: Sendable, Equatable {
        /// The figure comes as it is.
        case none
        /// Nanoseconds of one operation, divided by so much.
        case time(Double)
        /// MiB in a second.
        case rate
        /// Operations in a second.
        case operations
    }

    /// In JSON, and of the container's phase: `getpid`.
    var key: String
    var name: String
    var unit: String
    var better = Comparison.Direction.lower
    var turn: Turn
    var conversion = Conversion.none

    /// The figure that a phase gives.
    func figure(_ phase: PhaseRecorder.Phase) -> Double {
        switch conversion {
        case .none: Double(phase.nanoseconds)
        case .time(let divisor): Double(phase.nanoseconds) / Double(max(phase.amount, 1)) / divisor
        case .rate: phase.rate / 1_048_576
        case .operations: phase.rate
        }
    }

    static let all: [IsolationMeasure] = [
        .init(key: "start", name: "start to first output", unit: "ms", turn: .start),
        .init(key: "run", name: "whole run of `true`", unit: "ms", turn: .whole),
        .init(key: "exec", name: "exec of `true` in a container", unit: "ms", turn: .start),
        .init(key: "two", name: "two containers, a pod where there are pods", unit: "ms", turn: .pair),
        .init(key: "memory-1", name: "memory of one container", unit: "MiB", turn: .start),
        .init(key: "memory-10", name: "memory of each of ten containers", unit: "MiB", turn: .ten),
        .init(key: "memory-50", name: "memory of each of fifty containers", unit: "MiB", turn: .fifty),
        .init(
            key: "density", name: "containers until 80 % of the memory is used, at most 1000", unit: "",
            better: .higher,
            turn: .density),
        .init(key: "request", name: "a line to stdin and back", unit: "ms", turn: .request),
        .init(key: "request-tail", name: "the same, 99th percentile", unit: "ms", turn: .request),
        .init(
            key: "request-noisy", name: "99th percentile beside a container that is busy", unit: "ms", turn: .request),
        .init(key: "podman-start", name: "podman run: start to first output", unit: "ms", turn: .podman),
        .init(key: "podman-exec", name: "podman exec of `true`", unit: "ms", turn: .podman),
        .init(key: "podman-memory", name: "podman: memory of one container", unit: "MiB", turn: .podman),
        .init(key: "containerd-start", name: "ctr run: start to first output", unit: "ms", turn: .containerd),
        .init(key: "containerd-exec", name: "ctr task exec of `true`", unit: "ms", turn: .containerd),
        .init(key: "containerd-memory", name: "containerd: memory of one container", unit: "MiB", turn: .containerd),
        .init(key: "docker-start", name: "docker run: start to first output", unit: "ms", turn: .docker),
        .init(key: "docker-exec", name: "docker exec of `true`", unit: "ms", turn: .docker),
        .init(key: "docker-memory", name: "docker: memory of one container", unit: "MiB", turn: .docker),
        .init(key: "getpid", name: "system call: getpid", unit: "ns", turn: .load, conversion: .time(1)),
        .init(key: "read-zero", name: "system call: read of /dev/zero", unit: "ns", turn: .load, conversion: .time(1)),
        .init(
            key: "futex", name: "two threads wake each other (futex)", unit: "µs", turn: .load, conversion: .time(1000)),
        .init(key: "spawn", name: "clone, exec and wait", unit: "µs", turn: .load, conversion: .time(1000)),
        .init(key: "integer", name: "CPU: a million integer steps", unit: "ms", turn: .load, conversion: .time(1e6)),
        .init(
            key: "float", name: "CPU: a million floating-point steps", unit: "ms", turn: .load, conversion: .time(1e6)),
        .init(key: "memory", name: "memory copy", unit: "MiB/s", better: .higher, turn: .load, conversion: .rate),
        .init(
            key: "files-root", name: "create, stat, unlink: root", unit: "µs/file", turn: .load,
            conversion: .time(1000)),
        .init(
            key: "files-bind", name: "create, stat, unlink: bind mount", unit: "µs/file", turn: .load,
            conversion: .time(1000)),
        .init(
            key: "data-root", name: "write and read 64 MiB: root", unit: "MiB/s", better: .higher, turn: .load,
            conversion: .rate),
        .init(
            key: "data-bind", name: "write and read 64 MiB: bind mount", unit: "MiB/s", better: .higher, turn: .load,
            conversion: .rate),
        .init(key: "tcp-request", name: "TCP request over loopback", unit: "µs", turn: .load, conversion: .time(1000)),
        .init(
            key: "tcp-stream", name: "TCP stream over loopback", unit: "MiB/s", better: .higher, turn: .load,
            conversion: .rate),
        .init(
            key: "redis-get", name: "redis: GET, 20 clients", unit: "1/s", better: .higher, turn: .redis,
            conversion: .operations),
        .init(
            key: "redis-set", name: "redis: SET, 20 clients", unit: "1/s", better: .higher, turn: .redis,
            conversion: .operations),
        .init(
            key: "postgres-read", name: "pgbench: reads, 4 clients", unit: "1/s", better: .higher, turn: .postgres,
            conversion: .operations),
        .init(
            key: "postgres-write", name: "pgbench: writes, 4 clients", unit: "1/s", better: .higher, turn: .postgres,
            conversion: .operations),
    ]
}
