import LinuxSystem
import Synchronization

/// The last events of a pod, for any number of listeners.
package final class EventLog: Sendable {
    /// How many are kept.
    static let capacity = 512

    /// An event, and when it came.
    package struct Entry: Sendable {
        package var event: PodEvent
        /// Nanoseconds since the epoch.
        package var time: Int64
    }

    private struct State {
        /// The number of the first that is kept.
        var first: UInt64 = 1
        var events: [Entry] = []
        /// Settled by the next event.
        var next: Promise<Void>

        var end: UInt64 { first + UInt64(events.count) }
    }

    private let state: Mutex<State>

    package init() throws { state = Mutex(State(next: try Promise())) }

    package func note(_ event: PodEvent) {
        // Without a new promise nobody could wait: the old one stays, and who waits asks again.
        let next = try? Promise<Void>()
        let waited = state.withLock { state in
            state.events.append(Entry(event: event, time: wallClockNanoseconds()))
            if state.events.count > Self.capacity {
                state.events.removeFirst()
                state.first += 1
            }
            defer { if let next { state.next = next } }
            return state.next
        }
        waited.settle(())
    }

    /// The events from a number on, as far as they are kept. Waits for one, but not longer than `limit`.
    ///
    /// - Parameter first: events count from 1; 0: what is to come.
    /// - Returns: the number of the first of them, and the events; none when nothing happened.
    package func events(from first: UInt64, within limit: Duration) async -> (first: UInt64, events: [Entry]) {
        let wanted = first == 0 ? state.withLock { $0.end } : first
        let next = state.withLock { $0.end > wanted ? nil : $0.next }
        if let next { await waiting(atMost: limit) { await next.value() } }
        return state.withLock { state in
            let from = min(max(wanted, state.first), state.end)
            return (from, Array(state.events[Int(from - state.first)...]))
        }
    }
}
