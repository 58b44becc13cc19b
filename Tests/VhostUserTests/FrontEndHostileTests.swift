import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import VhostUser
@testable import Virtio

/// Back ends that do one thing wrong, at each step of a device's life.
@Suite(.timeLimit(.minutes(2))) struct FrontEndHostileTests {
    /// All that a front end does in its life; its last error, where it had one.
    private static func live(_ machine: FakeMachine, _ script: ScriptedBackEnd, _ socket: SharedDescriptor) throws
        -> SessionError?
    {
        try script.run()
        // A short timeout only where the test waits for it, since the host may be busy.
        let isLate = script.fault.map { $0.1 == .silence || $0.1 == .trickle } ?? false
        do {
            let front = try VhostUserFrontEnd(
                socket: socket, memory: machine.regions, queueCount: 2, configuration: .fromBackEnd(size: 8),
                timeout: .milliseconds(isLate ? 100 : 5000))
            for queue in 0..<2 { try front.start(queue: queue, machine.setup(queue)) }
            for queue in 0..<2 { _ = front.stop(queue: queue) }
            return try reportedError(front)
        } catch let error as SessionError {
            return error
        }
    }

    /// The error that a watch reports, without waiting for one.
    private static func reportedError(_ front: VhostUserFrontEnd) throws -> SessionError? {
        final class Report { var error: SessionError? }
        let report = Report()
        let loop = try EventLoop()
        try front.watch(loop) { if case .connection(let error) = $0 { report.error = error } }
        try loop.runOnce(timeoutMilliseconds: 0)
        front.unwatch(loop)
        return report.error
    }

    /// Answers in a whole life: the handshake's five, two for the machine, seven a ring, and four to stop two.
    private static let steps = 5 + 2 + 2 * 7 + 4

    @Test func anHonestLife() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let script = ScriptedBackEnd(theirs)
        #expect(try Self.live(FakeMachine(), script, ours) == nil)
        #expect(script.answers == Self.steps)
    }

    @Test(arguments: ScriptedBackEnd.Fault.allCases)
    func oneFault(_ fault: ScriptedBackEnd.Fault) throws {
        let machine = try FakeMachine()
        for step in 0..<Self.steps {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let script = ScriptedBackEnd(theirs)
            script.fault = (step, fault)
            let error = try Self.live(machine, script, ours)
            let place = "\(fault) at step \(step): \(String(describing: error)) after \(script.log)"
            #expect(Self.isExpected(error, fault, step), "\(place)")
        }
    }

    private static func isExpected(_ error: SessionError?, _ fault: ScriptedBackEnd.Fault, _ step: Int) -> Bool {
        // With all its bits the other way round the number of queues is just very large.
        if fault == .wrongContent, step == 2 { return error == nil }
        // One more feature, one protocol feature less, and three queues.
        if fault == .wrongBit, step <= 2 { return error == nil }
        switch (fault, error) {
        case (_, nil): return false
        case (.silence, .timedOut?), (.trickle, .timedOut?), (.hangUp, .hungUp?), (.otherRequest, .wrongReply?):
            return true
        case (.silence, _), (.trickle, _), (.hangUp, _), (.otherRequest, _): return false
        default: return true
        }
    }

    /// A back end that takes nothing: no request waits for ever for room.
    @Test func nothingIsTaken() throws {
        let (ours, _theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        var full = [UInt8](repeating: 0, count: 1 << 16)
        while send(ours.raw, &full, full.count, Int32(MSG_DONTWAIT)) > 0 {}
        let machine = try FakeMachine()
        #expect(throws: SessionError.timedOut(1)) {
            _ = try VhostUserFrontEnd(
                socket: ours, memory: machine.regions, queueCount: 2, configuration: .own([]),
                timeout: .milliseconds(100))
        }
        _ = _theirs.raw
    }

    @Test func noDescriptorIsLeft() throws {
        let machine = try FakeMachine()
        let before = try Self.openDescriptors()
        for fault in [nil, ScriptedBackEnd.Fault.descriptors, .hangUp] {
            for step in [0, 3, 6, 12] {
                let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
                let script = ScriptedBackEnd(theirs)
                script.fault = fault.map { (step, $0) }
                _ = try Self.live(machine, script, ours)
            }
        }
        // The scripts' threads close theirs when they see the end.
        for _ in 0..<200 where try Self.openDescriptors() > before { usleep(10_000) }
        #expect(try Self.openDescriptors() <= before)
    }

    private static func openDescriptors() throws -> Int {
        guard let directory = opendir("/proc/self/fd") else { throw SystemError.last("opendir", "/proc/self/fd") }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        return count
    }
}
