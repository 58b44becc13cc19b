import GuestSystem
import LinuxSystem
import Synchronization

/// The pid namespace that containers of the pod share on request: it lives as long as its first process, which does
/// nothing but reap orphans.
public final class SharedProcesses: Sendable {
    /// The first argument that makes the agent's program that process.
    static let argument = "keep-processes"
    private let keeper = Mutex<GuestProcess?>(nil)

    /// The first process; started when it is first asked for.
    func firstProcess(_ reaper: Reaper, _ executable: SelfExecutable) throws(SystemError) -> GuestProcess {
        try keeper.withLock { keeper throws(SystemError) in
            if let keeper, keeper.ended.current == nil { return keeper }
            let none = SharedDescriptor(try OwnedDescriptor.open("/dev/null", 2))
            var launch = Reaper.Launch(
                executable: executable.descriptor.raw, arguments: ["martlet-agent", Self.argument],
                descriptors: [none.raw, none.raw, none.raw])
            launch.namespaces = UInt64(NamespaceFlag.pid)
            let process = try reaper.start(launch)
            keeper = process
            return process
        }
    }
}
