import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// The pid namespace that containers of the pod share on request: it lives as long as its first process, `ProcessKeeper`.
public final class SharedProcesses: Sendable {
    private let keeper = Mutex<GuestProcess?>(nil)

    /// The first process; started when it is first asked for.
    func firstProcess(_ reaper: Reaper, _ executable: SelfExecutable) throws(SystemError) -> GuestProcess {
        try keeper.withLock { keeper throws(SystemError) in
            if let keeper, keeper.ended.current == nil { return keeper }
            let process = try Self.start(reaper, executable)
            keeper = process
            return process
        }
    }

    private static func start(_ reaper: Reaper, _ executable: SelfExecutable) throws(SystemError) -> GuestProcess {
        let (process, ready) = try launch(reaper, executable)
        var byte: UInt8 = 0
        let count = try retrying("read", "the keeper of shared processes") { read(ready.raw, &byte, 1) }
        guard count == 1 else {
            throw SystemError("start", "the keeper of shared processes", errno: .noSuchProcess)
        }
        return process
    }

    /// When this returns, only the keeper has the other end of the pipe.
    private static func launch(
        _ reaper: Reaper, _ executable: SelfExecutable
    ) throws(SystemError) -> (GuestProcess, ready: SharedDescriptor) {
        let none = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
        let (ours, theirs) = try SharedDescriptor.pipe()
        return (try reaper.start(ProcessKeeper.launch(executable, none: none, ready: theirs)), ours)
    }
}
