import Synchronization
public import VMMControl

/// Counts the requests to a file server, and how long they took. Thread-safe.
public final class FileStatistics: Sendable {
    private struct State {
        /// By kind.
        var nanoseconds = [UInt64](repeating: 0, count: kinds.count)
        /// Of each kind one for each bucket.
        var counts = [UInt64](repeating: 0, count: kinds.count * buckets)
    }

    private static let kinds = FileOperationKind.allCases
    /// The last one has no bound.
    private static let buckets = FileOperationKind.bounds.count + 1

    private let state = Mutex(State())

    public init() {}

    /// - Parameter opcode: of FUSE.
    public func note(opcode: UInt32, nanoseconds: UInt64) {
        let kind = Int(FileOperationKind(opcode: opcode).rawValue) - 1
        let bucket = FileOperationKind.bounds.firstIndex { nanoseconds <= $0 } ?? Self.buckets - 1
        state.withLock { state in
            state.nanoseconds[kind] &+= nanoseconds
            state.counts[kind * Self.buckets + bucket] &+= 1
        }
    }

    /// So far, of the kinds that there were.
    public var operations: [ProcessStatistics.Operations] {
        let state = state.withLock { $0 }
        return Self.kinds.enumerated().compactMap { index, kind in
            let counts = Array(state.counts[index * Self.buckets..<(index + 1) * Self.buckets])
            if counts.allSatisfy({ $0 == 0 }) { return nil }
            return .init(kind: kind, nanoseconds: state.nanoseconds[index], counts: counts)
        }
    }
}
