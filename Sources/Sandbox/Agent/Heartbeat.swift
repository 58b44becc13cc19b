import AgentAPI
import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import TTRPC
import Telemetry

/// Notices an agent that has stopped answering, and ends its machine.
///
/// A thread of its own in the agent, of the highest priority in the guest, sends back what it gets: a guest that is busy still
/// answers, one that hangs does not. The requests of the agent's service have a much longer limit: they are answered by threads
/// that compete with the containers.
///
/// A host under load loses no pod: see `Patience`.
final class Heartbeat: Sendable {
    private let cancelled: SharedDescriptor
    private let requests: Task<Void, Never>

    /// Watches the agent from now on.
    ///
    /// - Throws: when the agent does not take the connection.
    init(
        _ link: AgentLink, _ client: AgentServiceClient, _ limits: Configuration.Agent
    ) async throws {
        let machine = link.machine
        let stream = try await link.stream(StreamNumber.heartbeat, deadline: limits.requestTimeout)
        let cancelled = try SharedDescriptor.event()
        self.cancelled = cancelled
        let limit = limits.heartbeatTimeout
        requests = Task {
            let limit = max(limits.requestTimeout, limit)
            // A lost connection is noticed below.
            guard let answers = try? await Self.answers(client, interval: limits.heartbeatInterval, limit: limit),
                !answers
            else { return }
            machine.kill(.ended("the agent stopped answering requests for \(limit)"))
        }
        try startThread("heartbeat") {
            let pulse = Pulse(stream, cancelled, interval: limits.heartbeatInterval, limit: limit) {
                machine.processes.map(\.pid)
            }
            switch pulse.run() {
            case .cancelled: break
            case .silent: machine.kill(.ended("the agent stopped answering for \(limit)"))
            case .lost:
                // The machine has ended or is about to, which its driver reports. One that lives on without its agent is of no
                // use.
                if !pulse.isCancelled(within: .seconds(1)) {
                    machine.kill(.ended("the connection to the agent was lost"))
                }
            }
        }
    }

    /// Ends the watch.
    func cancel() {
        cancelled.signal()
        requests.cancel()
    }

    /// Returns false when a call to the agent stays unanswered for `limit`; throws when the connection is lost or the task is
    /// cancelled.
    private static func answers(
        _ agent: AgentServiceClient, interval: Duration, limit: Duration
    ) async throws -> Bool {
        while true {
            let answered = try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    _ = try await agent.guestDetails(.init(), timeout: TTRPCClient.noTimeout)
                    return true
                }
                group.addTask {
                    var waited = Duration.zero
                    while waited < limit {
                        try await Task.sleep(for: interval)
                        waited += interval
                    }
                    return false
                }
                defer { group.cancelAll() }
                return try await group.next() ?? false
            }
            if !answered { return false }
            try await Task.sleep(for: interval)
        }
    }
}

/// How long somebody has been waited for who may have been kept from answering by the host.
///
/// Time counts in ticks. Of one that took longer than it should, because this thread itself was late, only the tick counts; of
/// one in which a thread of the machine waited for a CPU of the host, only the rest.
struct Patience {
    let limit: Duration
    private var waited: Duration
    /// Time of the machine's starvation that was not counted. A guest can starve itself, so it has a bound.
    private var forgiven = Duration.zero

    /// - Parameter waited: how long already.
    init(limit: Duration, waited: Duration = .zero) { (self.limit, self.waited) = (limit, waited) }

    /// Counts a tick.
    ///
    /// - Parameters:
    ///   - tick: how long it should take.
    ///   - took: how long it took.
    ///   - starved: how long a thread of the machine was ready to run in it and had no CPU.
    /// - Returns: whether the limit has passed.
    mutating func passes(tick: Duration, took: Duration, starved: Duration) -> Bool {
        let counted = min(tick, took)
        let excused = forgiven < limit * 9 ? max(.zero, min(starved, counted)) : .zero
        forgiven += excused
        waited += counted - excused
        return waited >= limit
    }
}

/// The host's side of the stream of heartbeats. Belongs to its thread.
struct Pulse {
    enum End: Sendable { case cancelled, silent, lost }

    private let stream: SharedDescriptor
    private let cancelled: SharedDescriptor
    private let interval: Duration
    private let limit: Duration
    private let processes: () -> [pid_t]

    /// - Parameters:
    ///   - cancelled: an eventfd.
    ///   - processes: those of the machine.
    init(
        _ stream: SharedDescriptor, _ cancelled: SharedDescriptor, interval: Duration, limit: Duration,
        processes: @escaping () -> [pid_t]
    ) {
        self.stream = stream
        self.cancelled = cancelled
        self.interval = interval
        self.limit = limit
        self.processes = processes
    }

    /// Sends numbers and waits for each to come back; blocks.
    func run() -> End {
        var number: UInt64 = 0
        while true {
            number += 1
            if let end = beat(number) { return end }
            if isCancelled(within: interval) { return .cancelled }
        }
    }

    func isCancelled(within time: Duration) -> Bool {
        var item = pollfd(fd: cancelled.raw, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, Int32(time / .milliseconds(1))) > 0
    }

    /// - Returns: nil when the number has come back.
    private func beat(_ number: UInt64) -> End? {
        var bytes = number.littleEndian
        let sentAt = monotonicNanoseconds()
        let sent = withUnsafeBytes(of: &bytes) {
            send(stream.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
        guard sent == 8 else { return .lost }
        // The limit is from the last answer on.
        var patience = Patience(limit: limit, waited: number == 1 ? .zero : interval)
        var delays: RunDelays?
        while true {
            let begin = ContinuousClock.now
            var items = [
                pollfd(fd: stream.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: cancelled.raw, events: Int16(POLLIN), revents: 0),
            ]
            let ready = poll(&items, 2, Int32(interval / .milliseconds(1)))
            if items[1].revents != 0 { return .cancelled }
            if ready > 0 {
                guard isAnswer(number) else { return .lost }
                MetricFamily.heartbeat.observe(nanoseconds: monotonicNanoseconds() - sentAt)
                return nil
            }
            if ready < 0, errno != EINTR { return .lost }
            let now = RunDelays(of: processes())
            let starved = delays.map { now.longest(since: $0) } ?? .zero
            delays = now
            if patience.passes(tick: interval, took: ContinuousClock.now - begin, starved: starved) { return .silent }
        }
    }

    /// Anything else than the number is the end: what the guest sends costs no more than what it is sent.
    private func isAnswer(_ number: UInt64) -> Bool {
        setReceiveTimeout(stream.raw, interval)
        var answer: UInt64 = 0
        let count = withUnsafeMutableBytes(of: &answer) { recv(stream.raw, $0.baseAddress, 8, Int32(MSG_WAITALL)) }
        return count == 8 && UInt64(littleEndian: answer) == number
    }
}
