import Synchronization

/// The state of a network interface's link, which the driver reads in the status (virtio 1.2, 5.1.4). Thread-safe.
final class NetLink: Sendable {
    private struct State {
        var isWanted = true
        var hasTap = true
        var onChange: (@Sendable () -> Void)?
        var isUp: Bool { isWanted && hasTap }
    }

    private let state = Mutex(State())

    var isUp: Bool { state.withLock { $0.isUp } }

    /// Has `handler` called on any thread when the link has gone up or down.
    func onChange(_ handler: @escaping @Sendable () -> Void) { state.withLock { $0.onChange = handler } }

    /// Sets what the host wants.
    func set(isWanted: Bool) { change { $0.isWanted = isWanted } }

    /// The tap is gone for good.
    func loseTap() { change { $0.hasTap = false } }

    private func change(_ body: (inout State) -> Void) {
        state.withLock { state in
            let before = state.isUp
            body(&state)
            return state.isUp == before ? nil : state.onChange
        }?()
    }
}
