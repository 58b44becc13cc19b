import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

/// Who is believed to hang, and who not.
@Suite(.timeLimit(.minutes(1))) struct HeartbeatTests {
    private let tick = Duration.milliseconds(500)

    private func ticks(_ patience: inout Patience, took: Duration? = nil, starved: Duration = .zero) -> Int {
        for count in 1...1000 where patience.passes(tick: tick, took: took ?? tick, starved: starved) { return count }
        return .max
    }

    @Test func aMachineThatHasTheCPUAndIsSilentHangs() {
        var patience = Patience(limit: .seconds(4))
        #expect(ticks(&patience) == 8)
    }

    /// The host stalled: this thread itself came late, so a tick counts as one.
    @Test func aTickThatComesLateCountsOnce() {
        var patience = Patience(limit: .seconds(4))
        #expect(ticks(&patience, took: .seconds(60)) == 8)
    }

    @Test func timeWithoutACPUDoesNotCount() {
        var patience = Patience(limit: .seconds(4))
        #expect(ticks(&patience, starved: .milliseconds(400)) == 40)
    }

    /// A guest can starve its own vCPUs: that excuses it for some time only.
    @Test func starvationIsNoExcuseForEver() {
        var patience = Patience(limit: .seconds(4))
        #expect(ticks(&patience, starved: .seconds(1)) == 80)
    }

    private func pulse(
        limit: Duration = .milliseconds(200), _ body: @escaping @Sendable (_ guest: SharedDescriptor) -> Void
    ) throws -> Pulse.End {
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let cancelled = try SharedDescriptor.event()
        try startThread("guest") {
            body(guest)
            cancelled.signal()
        }
        return Pulse(host, cancelled, interval: .milliseconds(20), limit: limit) { [] }.run()
    }

    @Test func anAgentThatAnswersLives() throws {
        let end = try pulse { guest in
            for _ in 0..<20 {
                var number: UInt64 = 0
                guard recv(guest.raw, &number, 8, Int32(MSG_WAITALL)) == 8 else { return }
                _ = send(guest.raw, &number, 8, Int32(MSG_NOSIGNAL))
            }
        }
        #expect(end == .cancelled)
    }

    @Test func anAgentThatIsSilentHangs() throws {
        let end = try pulse { guest in
            usleep(5_000_000)
            withExtendedLifetime(guest) {}
        }
        #expect(end == .silent)
    }

    @Test func anAgentThatIsGoneIsLost() throws {
        let end = try pulse { guest in
            shutdown(guest.raw, Int32(SHUT_RDWR))
            usleep(5_000_000)
        }
        #expect(end == .lost)
    }

    /// What is no heartbeat is not read on and on.
    @Test func anAgentThatSendsSomethingElseIsLost() throws {
        let end = try pulse(limit: .seconds(60)) { guest in
            let bytes = [UInt8](repeating: 7, count: 4096)
            while send(guest.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL)) > 0 {}
        }
        #expect(end == .lost)
    }

    /// A thread that competes with others waits for its CPU.
    @Test func theDelaysOfThreadsAreRead() throws {
        let before = RunDelays(of: [getpid()])
        let spinners = 4 * Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        let end = ContinuousClock.now + .milliseconds(600)
        for _ in 0..<spinners { try startThread("spin") { while ContinuousClock.now < end {} } }
        usleep(50_000)
        let begun = RunDelays(of: [getpid()])
        usleep(400_000)
        let delay = RunDelays(of: [getpid()]).longest(since: begun)
        #expect(delay > .milliseconds(50), "\(delay)")
        #expect(RunDelays(of: []).longest(since: before) == .zero)
    }
}
