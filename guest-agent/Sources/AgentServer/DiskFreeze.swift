import CLinux
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// Has the file systems on the machine's disks stand still: what is on the disks is whole then, and nothing is written there until
/// they are thawed, or the time is over. Their users wait meanwhile.
///
/// Source: fsfreeze(8); FIFREEZE and FITHAW of linux/fs.h.
final class DiskFreeze: Sendable {
    private struct State {
        /// A descriptor of each file system that stands still, which keeps it mounted.
        var roots: [SharedDescriptor] = []
        /// Of the freeze: the time of an earlier one thaws nothing.
        var number = 0
    }

    private let state = Mutex(State())
    /// _IOWR('X', 119, int), _IOWR('X', 120, int).
    private static let (freeze, thaw): (UInt, UInt) = (0xc004_5877, 0xc004_5878)

    /// Freezes them. Blocks until what was under way is on the disks.
    ///
    /// - Parameter limit: after this they are thawed in any case.
    /// - Returns: how many there are. Those that can't be written do not count.
    /// - Throws: where they stand still already, or one can't; none does then.
    func freeze(for limit: Duration) throws(AgentFailure) -> Int {
        let places = try during("read the mounts") { () throws(SystemError) in try Self.places() }
        let (count, number) = try state.withLock { state throws(AgentFailure) in
            guard state.roots.isEmpty else { throw AgentFailure(.failedPrecondition, "the disks are frozen already") }
            do throws(SystemError) {
                for place in places {
                    let root = SharedDescriptor(try OwnedDescriptor.open(place, O_RDONLY))
                    try check("freeze", place, martlet_ioctl_int(root.raw, Self.freeze, 0))
                    state.roots.append(root)
                }
            } catch {
                Self.thaw(&state)
                throw AgentFailure(error)
            }
            state.number += 1
            return (state.roots.count, state.number)
        }
        if count > 0 {
            Task {
                try? await Task.sleep(for: limit)
                state.withLock { if $0.number == number { Self.thaw(&$0) } }
            }
        }
        return count
    }

    /// - Returns: whether they stood still until now.
    func thaw() -> Bool {
        state.withLock { state in
            defer { Self.thaw(&state) }
            return !state.roots.isEmpty
        }
    }

    private static func thaw(_ state: inout State) {
        for root in state.roots.reversed() { _ = martlet_ioctl_int(root.raw, Self.thaw, 0) }
        state.roots = []
    }

    /// A mount point of each file system on a disk that can be written.
    private static func places() throws(SystemError) -> [String] {
        let majors = Set(Disks.numbers().compactMap { $0.split(separator: ":").first })
        var seen: Set<String> = []
        return try MountEntry.all().filter {
            $0.device.split(separator: ":").first.map(majors.contains) == true && $0.options.contains("rw")
                && seen.insert($0.device).inserted
        }.map(\.mountPoint)
    }
}
