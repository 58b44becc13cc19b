import Glibc
import Hypervisor
import Telemetry
import Traces

/// The spans of a pod's launch that its phases tell (`Logger.phase`): what the server has prepared, and the machine's own.
struct StartSpans {
    /// Nanoseconds of the monotonic clock, by the phases' names.
    private let times: [String: UInt64]
    private let trace: TraceContext

    init(_ times: [String: UInt64] = StartPhases.times, in trace: TraceContext) {
        (self.times, self.trace) = (times, trace)
    }

    /// - Parameter machine: the process that runs it.
    func record(machine: (name: String, pid: Int32)?) {
        let server = TracedProcess.server(getpid())
        record("root file system", server, from: ["rootfs begin"], to: ["rootfs ready"])
        record("network", server, from: ["network begin"], to: ["network ready"])
        let name = machine?.name.split(separator: "/").last.map(String.init) ?? "machine"
        let process = TracedProcess(name: name, pid: machine?.pid ?? 0)
        let whole = record(
            "machine", process, from: ["machine begin"],
            to: ["agent connected", "machine resumed", "agent ready", "vsock started"])
        let steps = [
            ("spawn", ["machine begin"], ["machine spawned"]),
            ("resume", ["machine begin"], ["machine resumed"]),
            ("build", ["machine spawned"], ["first instruction"]),
            ("boot", ["first instruction", "machine spawned"], ["agent ready", "vsock started"]),
            ("connect to the agent", ["agent ready", "vsock started"], ["agent connected"]),
        ]
        for (name, from, to) in steps { record(name, process, from: from, to: to, parent: whole) }
    }

    /// Records a span from the first of `from` that there was to the first of `to`.
    @discardableResult
    private func record(
        _ name: String, _ process: TracedProcess, from: [String], to: [String], parent: String? = nil
    ) -> String? {
        guard let start = from.lazy.compactMap({ times[$0] }).first, let end = to.lazy.compactMap({ times[$0] }).first,
            end >= start
        else { return nil }
        return trace.record(
            name, process, start: TraceClock.time(monotonic: start), end: TraceClock.time(monotonic: end),
            parent: parent)
    }
}
