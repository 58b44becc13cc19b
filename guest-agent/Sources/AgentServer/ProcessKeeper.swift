import CLinux
import ContainerInit
import Glibc
import GuestSystem
import Jail
import LinuxSystem

/// The first process of the pid namespace that containers of the pod share. It lives as long as the sandbox, and does nothing
/// but reap orphans.
///
/// Containers see it, and one with CAP_SYS_PTRACE can look into it and enter its namespaces. So there is nothing: it is a
/// program of its own, not a copy of the agent, in a mount namespace of one empty directory, without any privilege.
enum ProcessKeeper {
    /// The first argument that makes the agent's program this process.
    static let argument = "keep-processes"
    /// The descriptor on which it says that it is ready, by one byte.
    private static let ready: Int32 = 3

    /// How the process is started.
    ///
    /// - Parameters:
    ///   - executable: the agent's program.
    ///   - none: an open `/dev/null`.
    ///   - ready: a pipe's end for writing.
    static func launch(_ executable: SelfExecutable, none: SharedDescriptor, ready: SharedDescriptor) -> Reaper.Launch {
        var launch = Reaper.Launch(
            executable: executable.descriptor.raw, arguments: ["martlet-agent", argument],
            descriptors: [none.raw, none.raw, none.raw, ready.raw])
        launch.namespaces = UInt64(NamespaceFlag.pid | NamespaceFlag.ipc | NamespaceFlag.uts)
        return launch
    }

    /// The process itself. Nobody else is in its pid namespace until it has said that it is ready.
    static func run() -> Never {
        // Ignored: the kernel reaps the orphans itself.
        signal(SIGCHLD, SIG_IGN)
        do {
            try giveEverythingUp()
            var byte: UInt8 = 1
            try check("write", "ready", write(ready, &byte, 1))
            close(ready)
        } catch {
            Console.report("the keeper of shared processes: \(error)")
            _exit(1)
        }
        while true { pause() }
    }

    private static func giveEverythingUp() throws(SystemError) {
        let empty = OwnedDescriptor(owning: try check("mount", "an empty directory", martlet_empty_directory()))
        try check("unshare", "mount namespace", martlet_unshare(CLONE_NEWNS))
        try check("enter", "an empty directory", martlet_enter_root(empty.raw))
        try Jail.dropPrivileges(user: JailPlan.nobody)
    }
}
