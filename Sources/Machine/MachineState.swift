import Synchronization

/// What a machine does. Every request is checked against it, and `after` is the only place that says which state follows.
public enum MachineState: Sendable, Equatable, CustomStringConvertible {
    /// It has memory and vCPUs, and gets its devices.
    case created
    case running
    /// The vCPUs have been asked to pause, and some are still in the guest.
    case pausing
    /// No vCPU is in the guest.
    case paused
    /// The guest has ended the machine, or has come to an end that it did not want.
    case ended(MachineEnd)
    /// The host has stopped the machine.
    case stopped

    /// What changes a machine's state.
    enum Event: Sendable, Equatable, CustomStringConvertible {
        case boot, pause, parked, resume, stop
        case end(MachineEnd)

        var description: String {
            switch self {
            case .boot: "boot"
            case .pause: "pause"
            case .parked: "parked"
            case .resume: "resume"
            case .stop: "stop"
            case .end: "end"
            }
        }
    }

    /// The state after an event; nil where the event is not possible in this state.
    func after(_ event: Event) -> MachineState? {
        switch (self, event) {
        case (.created, .boot): .running
        case (.running, .pause): .pausing
        case (.pausing, .parked): .paused
        case (.paused, .resume): .running
        case (.running, .end(let end)), (.pausing, .end(let end)), (.paused, .end(let end)): .ended(end)
        case (_, .stop): .stopped
        default: nil
        }
    }

    /// It has been booted, and has not ended.
    public var isBooted: Bool {
        switch self {
        case .running, .pausing, .paused: true
        case .created, .ended, .stopped: false
        }
    }

    public var description: String {
        switch self {
        case .created: "created"
        case .running: "running"
        case .pausing: "pausing"
        case .paused: "paused"
        case .ended(let end): "ended (\(end))"
        case .stopped: "stopped"
        }
    }
}

/// A machine's state, which vCPUs' threads change as well as the machine's own thread.
final class MachineLifecycle: Sendable {
    private let current = Mutex(MachineState.created)

    var state: MachineState { current.withLock { $0 } }

    /// Goes to the state that follows.
    ///
    /// - Throws: `MachineError` with the state's name where the event is not possible in it.
    func apply(_ event: MachineState.Event) throws(MachineError) {
        let refusal: MachineState? = current.withLock { state in
            guard let next = state.after(event) else { return state }
            state = next
            return nil
        }
        if let refusal { throw MachineError("\(event): the machine is \(refusal)") }
    }

    /// Checks a request that does not change the state.
    ///
    /// - Throws: `MachineError` with the state's name.
    func require(_ request: String, _ isPossible: (MachineState) -> Bool) throws(MachineError) {
        let state = state
        guard isPossible(state) else { throw MachineError("\(request): the machine is \(state)") }
    }
}
