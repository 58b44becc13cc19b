import Glibc
import LinuxSystem
import Synchronization

/// `martlet bench reclaim`: how much of the memory that a pod has used and no longer needs the host has again, and when.
public struct ReclaimBench: Sendable {
    /// A configuration whose pods are measured.
    public struct Side: Sendable {
        public var name: String
        /// Its file.
        public var configuration: String

        public init(_ name: String, configuration: String) { (self.name, self.configuration) = (name, configuration) }
    }

    /// Absolute path of `martlet`.
    public var martlet: String
    /// The state of the pods.
    public var root: String
    /// What each use takes, MiB.
    public var mebibytes: Int
    /// How long memory may take to come back.
    public var seconds = 10
    /// How long the start of a pod, or one command in it, may take.
    public var timeout = Duration.seconds(300)
    /// How long a pod settles before it is measured.
    private static let settling: UInt32 = 4_000_000
    private static let interval: UInt32 = 200_000

    public init(martlet: String, root: String, mebibytes: Int) {
        (self.martlet, self.root, self.mebibytes) = (martlet, root, mebibytes)
    }

    /// What the container runs: it has busybox, and a file of `mebibytes` at /share/file.
    public static let arguments = ["/bin/sh", "-c", "echo ready; exec sleep 100000"]

    private var uses: [(name: String, command: [String])] {
        [
            ("anonymous", Self.quietly("dd if=/dev/zero of=/dev/null bs=\(mebibytes)M count=1")),
            ("cache", Self.quietly("dd if=/share/file of=/dev/null bs=1M")),
        ]
    }

    private static func quietly(_ command: String) -> [String] { ["/bin/sh", "-c", "exec \(command) 2>/dev/null"] }

    /// Measures one side after the other.
    ///
    /// - Parameters:
    ///   - bundle: of the container.
    ///   - progress: called with a message after each use.
    public func run(
        _ sides: [Side], missing: [ReclaimReport.Missing], command: String, facts: [BenchReport.Fact],
        bundle: String, progress: (String) -> Void
    ) throws -> ReclaimReport {
        var rows: [ReclaimReport.Row] = []
        for (number, side) in sides.enumerated() {
            let pod = try ServingPod(
                martlet: martlet, id: "bench-\(getpid())-\(number)", bundle: bundle,
                configuration: side.configuration, root: root)
            defer { pod.end() }
            try pod.waitForMessage(timeout)
            try pod.discardOutput()
            for (name, command) in uses {
                let row = try measure(name, command, side.name, pod)
                progress("\(side.name), \(name): \(Figures.ratio(row.returned)) after \(seconds) s")
                rows.append(row)
            }
        }
        if rows.isEmpty { throw BenchError("nothing can be measured here: \(missing.first?.reason ?? "")") }
        return ReclaimReport(command: command, facts: facts, seconds: seconds, rows: rows, missing: missing)
    }

    private func measure(
        _ use: String, _ command: [String], _ side: String, _ pod: ServingPod
    ) throws -> ReclaimReport.Row {
        usleep(Self.settling)
        let state = try pod.state()
        let before = try PodHostMemory.measure(state)
        let child = try pod.start(["exec", pod.id] + command)
        var peak = before
        let begin = ContinuousClock.now
        while true {
            let end = child.waitForEnd(timeout: .milliseconds(100))
            peak = max(peak, try PodHostMemory.measure(state))
            if let end {
                guard end == .exited(0) else { throw BenchError("\(side): \(command.joined(separator: " ")): \(end)") }
                break
            }
            if ContinuousClock.now - begin > timeout {
                child.signal(SIGKILL)
                throw BenchError("\(side): \(command.joined(separator: " ")) did not end within \(timeout)")
            }
        }
        let freed = ContinuousClock.now
        var row = ReclaimReport.Row(side: side, use: use, before: before, peak: peak, after: peak)
        while ContinuousClock.now - freed < .seconds(seconds) {
            usleep(Self.interval)
            row.after = try PodHostMemory.measure(state)
            if row.returned < 0.9 {
                row.secondsUntilMost = nil
            } else if row.secondsUntilMost == nil {
                row.secondsUntilMost = (ContinuousClock.now - freed) / .seconds(1)
            }
        }
        return row
    }
}
