import LinuxSystem
import Logging
import Synchronization

/// Writes a line at info level for each step of a container's life cycle: created, started, exited, deleted.
///
/// The metadata are `container`, `exec` for a process that is not the container's first, `code` and, where it is known,
/// `reason` of an exit, and `duration_ms`: of a start since the creation, of an exit since the start, of a removal since the
/// exit. The pod is in the logger's own metadata.
public final class LifeCycleLog: Sendable {
    private let logger: Logger
    /// When each process's last step was, in nanoseconds of the monotonic clock.
    private let steps = Mutex<[ProcessKey: UInt64]>([:])
    /// Containers that the kernel killed processes of when memory ran out.
    private let outOfMemory = Mutex<Set<String>>([])
    private let clock: @Sendable () -> UInt64

    private struct ProcessKey: Hashable {
        var container: String
        /// Empty for the first process.
        var exec: String
    }

    /// - Parameters:
    ///   - logger: its metadata name the pod.
    ///   - clock: nanoseconds of the monotonic clock.
    public init(_ logger: Logger, clock: @Sendable @escaping () -> UInt64 = { monotonicNanoseconds() }) {
        self.logger = logger
        self.clock = clock
    }

    /// Writes the event's line, if it is a step of a life cycle.
    ///
    /// - Parameter reason: why the process exited, where more is known than its exit code.
    public func note(_ event: PodEvent, reason: String? = nil) {
        switch event {
        case .created(let container, let bundle, _, _, let pid):
            write("created", container, "", ["bundle": "\(bundle)", "pid": "\(pid)"])
        case .started(let container, _): write("started", container, "")
        case .execAdded(let container, let exec): write("created", container, exec)
        case .execStarted(let container, let exec, _): write("started", container, exec)
        case .exited(let container, let exec, _, let record):
            var metadata: Logger.Metadata = ["code": "\(record.status)"]
            let isOutOfMemory = exec.isEmpty && outOfMemory.withLock { $0.remove(container) != nil }
            metadata["reason"] = (reason ?? (isOutOfMemory ? "OOM" : nil)).map { "\($0)" }
            write("exited", container, exec, metadata)
            if !exec.isEmpty { _ = steps.withLock { $0.removeValue(forKey: .init(container: container, exec: exec)) } }
        case .deleted(let container, _, let record):
            write("deleted", container, "", ["code": "\(record.status)"])
            steps.withLock { steps in steps = steps.filter { $0.key.container != container } }
        case .outOfMemory(let container): _ = outOfMemory.withLock { $0.insert(container) }
        case .paused(let container): write("paused", container, "", isStep: false)
        case .resumed(let container): write("resumed", container, "", isStep: false)
        }
    }

    private func write(
        _ step: String, _ container: String, _ exec: String, _ more: Logger.Metadata = [:], isStep: Bool = true
    ) {
        var metadata = more
        metadata["container"] = "\(container)"
        if !exec.isEmpty { metadata["exec"] = "\(exec)" }
        let now = clock()
        let last = steps.withLock { steps in
            let key = ProcessKey(container: container, exec: exec)
            defer { if isStep { steps[key] = now } }
            return steps[key]
        }
        if isStep, let last { metadata["duration_ms"] = "\((now - last) / 1_000_000)" }
        logger.info("\(exec.isEmpty ? "container" : "process") \(step)", metadata: metadata)
    }
}
