import Glibc
import LinuxSystem
import Logging
import Synchronization
import Testing

@testable import Hypervisor

/// The life of a machine, with real processes and without any.
@Suite(.timeLimit(.minutes(1))) struct MachineWatchTests {
    private func watch() throws -> MachineWatch {
        try MachineWatch(readyEvent: .started, logger: Logger(label: "test"))
    }

    private func sleeper(_ script: String = "exec sleep 100") throws -> MachineProcess {
        try MachineProcess(
            "sleeper", executable: "/bin/sh", arguments: ["-c", script],
            environment: ["PATH=/usr/bin:/bin"], descriptors: []
        ) { _ in }
    }

    /// A machine that another daemon runs.
    private final class ForeignMachine: WatchedPart {
        let end: Promise<VMEnd>
        init() throws { end = try Promise() }
        func ended() async -> VMEnd { await end.value() }
        func kill() { end.settle(.ended("destroyed")) }
    }

    @Test func theStateGoesForward() async throws {
        let watch = try watch()
        let process = try sleeper()
        #expect(watch.state == .created)
        #expect(throws: HypervisorError.self) { try watch.change(from: .running, to: .paused) {} }
        watch.started()
        watch.begin([process]) { $0[0] }
        #expect(watch.state == .running)
        try watch.change(from: .running, to: .paused) {}
        #expect(watch.state == .paused)
        do {
            try watch.change(from: .running, to: .paused) { Issue.record("paused twice") }
        } catch { #expect("\(error)" == "the machine is paused, not running") }
        // A failed change changes nothing.
        #expect(throws: HypervisorError.self) {
            try watch.change(from: .paused, to: .running) { throw HypervisorError("no") }
        }
        #expect(watch.state == .paused)
        watch.sign(.ended("enough"))
        #expect(watch.state == .stopped)
        #expect(await watch.end() == .ended("enough"))
        #expect(watch.state == .ended(.ended("enough")))
        #expect(process.child.ended == .signaled(SIGKILL))
        watch.sign(.poweredOff)
        watch.started()
        #expect(watch.state == .ended(.ended("enough")))
    }

    @Test func oneProcessTakesTheOthersWithIt() async throws {
        let watch = try watch()
        let (lasting, failing) = (try sleeper(), try sleeper("echo because >&2; exit 3"))
        watch.begin([lasting, failing]) { $0[0] }
        #expect(await watch.end() == .processEnded(name: "sleeper", how: .exited(3)))
        #expect(lasting.child.ended == .signaled(SIGKILL))
        #expect(failing.outputTail() == "because")
    }

    @Test func aMachineNeedsNoProcess() async throws {
        let watch = try watch()
        let foreign = try ForeignMachine()
        watch.started()
        watch.begin([foreign]) { $0[0] }
        foreign.end.settle(.poweredOff)
        #expect(await watch.end() == .poweredOff)
        let second = try self.watch()
        let other = try ForeignMachine()
        second.begin([other]) { $0[0] }
        second.sign(.guestCrashed("x"))
        #expect(await second.end() == .guestCrashed("x"))
        #expect(other.end.current == .ended("destroyed"))
    }

    @Test func theAgentIsAwaitedUntilTheEventOrTheEnd() async throws {
        let clock = ContinuousClock()
        let watch = try watch()
        let begin = clock.now
        try await watch.agentReady(within: .milliseconds(100))
        #expect(clock.now - begin >= .milliseconds(100))
        watch.take(.ready, from: "vsock")
        try await watch.agentReady(within: .milliseconds(100))
        #expect(clock.now - begin >= .milliseconds(200))
        watch.take(.started, from: "vsock")
        try await watch.agentReady(within: .seconds(50))
        let dying = try self.watch()
        dying.sign(.poweredOff)
        try await dying.agentReady(within: .seconds(50))
        #expect(clock.now - begin < .seconds(20))
    }
}
