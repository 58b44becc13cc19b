public import LinuxSystem
import Synchronization

/// The rings for the disks of a process. They are made before the process enters its jail, where none can be made.
public final class RingPool: Sendable {
    /// Requests of a queue that may be in progress.
    static let capacity = 64

    private let rings: Mutex<[IORing]>
    private let isShared: Bool
    /// Why the host gives no ring; nil: it does.
    public let obstacle: SystemError?

    /// - Parameters:
    ///   - count: of rings.
    ///   - isShared: there may be several disks: each takes at most half of the rings that are left.
    public init(count: Int, isShared: Bool) {
        self.isShared = isShared
        var made: [IORing] = []
        var obstacle: SystemError?
        do throws(SystemError) {
            for _ in 0..<count { made.append(try IORing(capacity: Self.capacity)) }
        } catch {
            obstacle = error
        }
        self.obstacle = made.isEmpty ? obstacle : nil
        rings = Mutex(made)
    }

    /// Takes rings for a disk: as many as there are, at most `count`.
    func take(_ count: Int) -> [IORing] {
        rings.withLock { rings in
            let share = isShared ? (rings.count + 1) / 2 : rings.count
            let taken = Array(rings.suffix(min(count, share)))
            rings.removeLast(taken.count)
            return taken
        }
    }

    /// Takes the rings of a disk back, which has no requests in progress.
    func giveBack(_ returned: [IORing]) { rings.withLock { $0 += returned } }
}
