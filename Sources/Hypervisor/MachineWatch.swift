import LinuxSystem
import Logging
import Synchronization
import VMMControl

/// Something whose end is a machine's: a process, or a machine that another daemon runs.
protocol WatchedPart: AnyObject, Sendable {
    /// Suspends until it has ended, and answers that as a sign of the machine's end.
    func ended() async -> VMEnd
    /// Ends it at once.
    func kill()
}

/// The state of a virtual machine: watches its parts, and reports once how it ended.
///
/// The first sign of an end brings others with it, and that of the cause may come second: all that come at once are
/// considered, then the remaining parts are ended. Where the first one tells the cause, nothing more is waited for.
final class MachineWatch: Sendable {
    private let life = Mutex<(state: MachineState, signs: [VMEnd])>((.created, []))
    /// Parts that come and go while the machine runs.
    private let others = Mutex<(parts: [any WatchedPart], areEnding: Bool)>(([], false))
    private let firstSign: Promise<Void>
    private let dead: Promise<VMEnd>
    /// It is time to connect to the agent, or the machine has ended.
    private let ready: Promise<Void>
    private let readyEvent: ControlEvent
    private let logger: Logger

    /// - Parameter readyEvent: after which it is time to connect to the agent.
    init(readyEvent: ControlEvent, logger: Logger) throws {
        self.readyEvent = readyEvent
        self.logger = logger
        firstSign = try Promise()
        dead = try Promise()
        ready = try Promise()
    }

    var state: MachineState { life.withLock { $0.state } }

    /// The guest runs.
    func started() { life.withLock { if $0.state == .created { $0.state = .running } } }

    /// Takes the machine from one state to another by `action`.
    ///
    /// - Throws: `HypervisorError` when it is not in the first one; what `action` throws.
    func change(from old: MachineState, to new: MachineState, _ action: () throws -> Void) throws {
        let state = state
        guard state == old else { throw HypervisorError("the machine is \(state), not \(old)") }
        try action()
        life.withLock { if $0.state == old { $0.state = new } }
    }

    /// Suspends until it is time to connect to the agent, the machine's end, or `limit`.
    func agentReady(within limit: Duration) async throws {
        if ready.current != nil { return }
        let ready = ready
        _ = try await onThread("await agent") { ready.wait(timeout: limit) }
    }

    /// Takes a sign of the end; may be called before `begin`.
    func sign(_ sign: VMEnd) {
        life.withLock { life in
            // More are of no use, and one of the processes may have fallen to the guest.
            if life.signs.count < 64 { life.signs.append(sign) }
            if case .ended = life.state { return }
            life.state = .stopped
        }
        firstSign.settle(())
        ready.settle(())
    }

    /// Takes an event of one of the machine's processes.
    func take(_ event: ControlEvent, from device: String) {
        if event == readyEvent, ready.settle(()) { logger.phase(event == .ready ? "agent ready" : "vsock started") }
        switch event {
        case .broken(let reason): sign(.deviceBroken(name: device, reason: reason))
        case .ended(.poweredOff, _): sign(.poweredOff)
        case .ended(.reset, let reason), .ended(.tripleFault, let reason), .ended(.halted, let reason):
            sign(.guestCrashed(reason))
        case .ended(.unhandled, let reason): sign(.machineFailed(reason))
        case .started, .ready: break
        }
    }

    /// Watches `parts`; when one ends, or another sign comes, ends the others.
    ///
    /// - Parameter cause: gives the end from the signs, in their order, when all parts have ended.
    func begin(_ parts: [any WatchedPart], cause: @Sendable @escaping ([VMEnd]) -> VMEnd) {
        for part in parts { Task.detached { [self] in sign(await part.ended()) } }
        Task.detached { [self] in
            await firstSign.value()
            if !life.withLock({ $0.signs[0].isConclusive }) { try? await Task.sleep(for: .milliseconds(60)) }
            // Before the kills below, which are no cause.
            let signs = life.withLock { $0.signs }
            let all =
                parts
                + others.withLock { others in
                    others.areEnding = true
                    return others.parts
                }
            for part in all { part.kill() }
            for part in all { _ = await part.ended() }
            // It waits for the ends of outputs.
            let end = (try? await onThread("machine end") { cause(signs) }) ?? signs[0]
            life.withLock { $0.state = .ended(end) }
            dead.settle(end)
        }
    }

    /// Watches a part that the running machine has got, as those of `begin`, until `forget`.
    func add(_ part: any WatchedPart) {
        let areEnding = others.withLock { others in
            others.parts.append(part)
            return others.areEnding
        }
        if areEnding { part.kill() }
        Task.detached { [self] in
            let end = await part.ended()
            // One that was taken away before is to end.
            if others.withLock({ $0.parts.contains { $0 === part } }) { sign(end) }
        }
    }

    /// Watches a part no more: its end is not the machine's.
    func forget(_ part: any WatchedPart) { others.withLock { $0.parts.removeAll { $0 === part } } }

    /// Suspends until the machine has ended and its processes are reaped.
    func end() async -> VMEnd { await dead.value() }
}
