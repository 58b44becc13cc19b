import Glibc
import LinuxSystem
import Logging
import Synchronization
import VMMControl

/// Watches the processes of a virtual machine, and tells once how it ended.
///
/// The first sign of an end brings the others with it, and that of the cause may come second: all that come at once are
/// looked at, then what is left is ended.
final class MachineWatch: Sendable {
    private let signs = Mutex<[VMEnd]>([])
    private let dying: Promise<Void>
    private let dead: Promise<VMEnd>
    /// The agent's first word has come, or never will.
    private let ready: Promise<Void>

    init() throws {
        dying = try Promise()
        dead = try Promise()
        ready = try Promise()
    }

    /// Takes a line of the guest's console.
    func guest(_ line: String, _ logger: Logger) {
        if line == "martlet-agent ready" {
            logger.phase("agent ready")
            ready.settle(())
        }
        logger.debug("guest: \(line)")
    }

    /// Suspends until the agent's first word, the machine's end, or `limit`.
    func agentReady(within limit: Duration) async throws {
        let ready = ready
        _ = try await onThread("await agent") { ready.wait(timeout: limit) }
    }

    /// Takes a sign of the end; may be called before `begin`.
    func sign(_ sign: VMEnd) {
        signs.withLock { $0.append(sign) }
        dying.settle(())
        ready.settle(())
    }

    /// Takes an event of one of the machine's processes.
    func take(_ event: ControlEvent, from device: String) {
        switch event {
        case .broken(let reason): sign(.deviceBroken(name: device, reason: reason))
        case .ended(.poweredOff, _): sign(.poweredOff)
        case .ended(.reset, let reason), .ended(.tripleFault, let reason), .ended(.halted, let reason):
            sign(.guestCrashed(reason))
        case .ended(.unhandled, let reason): sign(.machineFailed(reason))
        case .started, .ready: break
        }
    }

    /// Watches `children`; when one ends, or another sign comes, ends the others.
    ///
    /// - Parameter cause: tells the end from the signs, in their order, when all processes are gone.
    func begin(_ children: [ChildProcess], cause: @Sendable @escaping ([VMEnd]) async -> VMEnd) {
        for child in children {
            Task.detached { [self] in
                let end = await child.end()
                sign(.processEnded(name: child.name, how: "\(end)"))
            }
        }
        Task.detached { [self] in
            await dying.value()
            try? await Task.sleep(for: .milliseconds(60))
            // Before the kills below, which are no cause.
            let signs = signs.withLock { $0 }
            for child in children { child.signal(SIGKILL) }
            for child in children { _ = await child.end() }
            dead.settle(await cause(signs))
        }
    }

    /// Suspends until the machine has ended and its processes are reaped.
    func end() async -> VMEnd { await dead.value() }

    /// Ends processes of a machine that did not come to be.
    static func abandon(_ children: [ChildProcess]) {
        for child in children { child.signal(SIGKILL) }
        for child in children { _ = child.waitForEnd(timeout: .seconds(5)) }
    }
}

extension [VMEnd] {
    /// What the host decided, if that came first.
    var decided: VMEnd? {
        if case .ended? = first { return first }
        return nil
    }

    /// A process that a signal ended.
    var killed: VMEnd? {
        first { if case .processEnded(_, let how) = $0 { how.contains("killed") } else { false } }
    }

    var broken: VMEnd? {
        first { if case .deviceBroken = $0 { true } else { false } }
    }
}

extension Console {
    /// What the guest's kernel said of its panic, without the time.
    var panic: String? {
        guard let line = tail(Console.maximumLines).last(where: { $0.contains("Kernel panic") }) else { return nil }
        return line.firstRange(of: "Kernel panic").map { String(line[$0.lowerBound...]) } ?? line
    }
}
