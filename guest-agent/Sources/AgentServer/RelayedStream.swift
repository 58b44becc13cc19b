import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// One stream of a process, from its start to its end: one connection after another, and one thread that relays.
///
/// Between two connections it is detached: the process's pipe stays open, and nobody reads or writes it here.
final class RelayedStream: Sendable {
    /// Which way the bytes go.
    enum Direction: Sendable { case toProcess, fromProcess }

    private struct State {
        /// Of the connection that it has, waits for or had last; 0: none.
        var number: UInt64
        /// Whether that is to be let go of, or has been.
        var isDetached = false
        /// Whoever waits until it has been.
        var detached: Promise<Void>?
        /// Of the connection that comes when it has been.
        var next: UInt64?
        /// Whether none comes any more.
        var isOver = false
        var hasEnded = false

        mutating func takeDetached() -> Promise<Void>? {
            defer { detached = nil }
            return detached
        }
    }

    /// `stdin`, `stdout` or `stderr`.
    let name: String
    let direction: Direction
    private let table: StreamTable
    /// Signalled when the process has ended, or an input is to end.
    private let processEnded: SharedDescriptor
    private let state: Mutex<State>
    /// Signalled when the relay is to let go of its connection, and when it waits for the next one, to look for that.
    private let wake: SharedDescriptor
    /// Of an output: settled when all that will go to the host is there.
    let ended: Promise<Void>?

    /// - Parameters:
    ///   - number: of the first connection; 0: the process has no such stream.
    init?(
        _ name: String, _ direction: Direction, _ number: UInt64, table: StreamTable, processEnded: SharedDescriptor
    ) throws(SystemError) {
        if number == 0 { return nil }
        (self.name, self.direction, self.table, self.processEnded) = (name, direction, table, processEnded)
        state = Mutex(State(number: number))
        wake = try SharedDescriptor.event()
        ended = direction == .fromProcess ? try Promise() : nil
    }

    /// The number of the connection that it has or waits for; nil: none.
    var number: UInt64? { state.withLock { $0.isDetached || $0.hasEnded ? nil : $0.number } }

    /// Starts to relay.
    ///
    /// - Parameters:
    ///   - end: the agent's end of the pipe, which closes with the stream; or a terminal's master.
    ///   - onHostGone: the host has closed an output.
    func start(_ end: SharedDescriptor, onHostGone: @escaping @Sendable () -> Void) throws(SystemError) {
        let number = state.withLock { $0.number }
        let slot = try slot(number)
        // A parameter that ends with the thread's body.
        try startThread("\(name) \(number)", stackSize: 128 << 10) { [self] in
            switch direction {
            case .toProcess:
                var relay = InputRelay(sink: end, stop: processEnded)
                serve(number, slot, onHostGone) { relay.run(from: $0, detach: wake) }
            case .fromProcess:
                let relay = OutputRelay(source: end, processEnded: processEnded)
                serve(number, slot, onHostGone) { relay.run(to: $0, detach: wake) }
            }
        }
    }

    // MARK: On its thread

    private func serve(
        _ first: UInt64, _ slot: StreamTable.Slot?, _ onHostGone: () -> Void,
        _ relay: (_ connection: SharedDescriptor?) -> RelayEnd
    ) {
        var (number, slot) = (first, slot)
        while true {
            let end = relayOnce(slot, relay)
            if number != 0 { table.release(number) }
            if case .ended(let hostIsGone) = end {
                if hostIsGone { onHostGone() }
                return finish()
            }
            guard let next = nextNumber() else { return finish() }
            number = next
            do { slot = try self.slot(next) } catch {
                Console.report("\(name) \(next): \(error)")
                return finish()
            }
        }
    }

    private func relayOnce(
        _ slot: StreamTable.Slot?, _ relay: (_ connection: SharedDescriptor?) -> RelayEnd
    ) -> RelayEnd {
        guard let slot else { return relay(nil) }
        if let connection = slot.wait() ?? nil { return relay(connection) }
        // It never came.
        return state.withLock { $0.isDetached || $0.next != nil } ? .detached : .ended(hostIsGone: true)
    }

    private func slot(_ number: UInt64) throws(SystemError) -> StreamTable.Slot? {
        number == 0 ? nil : try table.slot(number)
    }

    /// Blocks until there is another connection to wait for; nil: there will be none.
    private func nextNumber() -> UInt64? {
        while true {
            let (isDecided, next, detached) = state.withLock { state in
                var count: UInt64 = 0
                _ = read(wake.raw, &count, 8)
                guard let next = state.next else { return (state.isOver, UInt64?.none, state.takeDetached()) }
                state.next = nil
                // It is to be let go of too.
                if state.isDetached { wake.signal() }
                return (true, next, state.isDetached ? nil : state.takeDetached())
            }
            detached?.settle(())
            if isDecided { return next }
            var item = pollfd(fd: wake.raw, events: Relay.readable, revents: 0)
            poll(&item, 1, -1)
        }
    }

    private func finish() {
        let (next, detached) = state.withLock { state in
            state.hasEnded = true
            return (state.next, state.takeDetached())
        }
        // It was attached again while it still had to be detached.
        if let next { table.refuse(next) }
        detached?.settle(())
        ended?.settle(())
    }

    // MARK: Requests

    /// Why it can't be detached, behind its name.
    var obstacle: String {
        switch direction {
        case .toProcess: "can't be detached: the host does not end it, or the process does not read it"
        case .fromProcess: "can't be detached: nobody reads what it has"
        }
    }

    /// Begins to let go of the connection. Nothing happens where there is none.
    ///
    /// - Returns: what is settled when that is done; nil where there is nothing to wait for.
    func detach() throws(SystemError) -> Promise<Void>? {
        let promise = try Promise<Void>()
        return state.withLock { state in
            if state.hasEnded { return nil }
            if state.isDetached, state.detached == nil { return nil }
            state.isDetached = true
            state.detached = state.detached ?? promise
            wake.signal()
            return state.detached
        }
    }

    /// Stops waiting for the present connection, if it has not come yet.
    func giveUpMissing() { table.abandon(state.withLock { $0.number }) }

    /// Whether it has a connection, or waits for one, that nobody asked to let go of.
    var isAttached: Bool { state.withLock { !$0.hasEnded && !$0.isDetached } }

    /// Goes on with another connection when the last one is done with. That of a stream that has ended is closed.
    ///
    /// - Parameter number: the connection's; 0: none.
    func attach(_ number: UInt64) {
        let isNext = state.withLock { state in
            guard state.isDetached, !state.isOver, !state.hasEnded else { return false }
            (state.number, state.next, state.isDetached) = (number, number, false)
            wake.signal()
            return true
        }
        if !isNext { table.refuse(number) }
    }

    /// Stops waiting for connections: for the present one, and when it is detached, for others.
    func abandon() {
        state.withLock { state in
            state.isOver = true
            if state.isDetached { wake.signal() }
            table.abandon(state.number)
        }
    }
}
