import CAgent
import Glibc
import LinuxSystem

/// What the first process does to make the guest usable.
public enum GuestSetup {
    public static func run() throws(AgentFailure) {
        setsid()
        umask(0o022)
        try during("set the guest up") {
            try GuestMounts.makeRootMovable()
            try GuestMounts.mountAll()
        }
        KernelModules.loadAll()
        martlet_agent_find_console()
        do {
            try check("bring up", "lo", martlet_agent_interface_up("lo"))
            try protect()
        } catch {
            // Containers run without these.
            Console.report("\(error)")
        }
    }

    /// Containers go first when memory runs out, and the agent serves many descriptors.
    private static func protect() throws(SystemError) {
        try writeText("-1000", to: "/proc/self/oom_score_adj")
        var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
        try check("setrlimit", "open files", setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
    }
}
