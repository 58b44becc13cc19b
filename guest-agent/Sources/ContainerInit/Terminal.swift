import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// A pseudo-terminal of the container's own devpts.
struct Terminal {
    let master: SharedDescriptor
    let slave: SharedDescriptor

    init(root: RootDirectory, of plan: ProcessPlan) throws(AgentFailure) {
        do {
            master = try root.open("/dev/pts/ptmx", O_RDWR | O_NOCTTY)
            // The container may have put anything in its place.
            let information = try master.information()
            guard information.st_mode & S_IFMT == S_IFCHR, information.st_rdev == martlet_agent_device_number(5, 2),
                try Self.isOnDevpts(master)
            else {
                throw AgentFailure(.failedPrecondition, "/dev/pts/ptmx is not a pseudo-terminal multiplexer")
            }
            try check("unlock", "/dev/pts/ptmx", martlet_agent_pty_unlock(master.raw))
            let peer = try check(
                "open the other end of", "/dev/pts/ptmx",
                martlet_agent_pty_peer(master.raw, O_RDWR | O_NOCTTY | O_CLOEXEC))
            slave = SharedDescriptor(OwnedDescriptor(owning: peer))
            if plan.keepsLineFeeds {
                var settings = termios()
                try check("tcgetattr", "/dev/pts/ptmx", tcgetattr(slave.raw, &settings))
                settings.c_oflag &= ~tcflag_t(ONLCR)
                try check("tcsetattr", "/dev/pts/ptmx", tcsetattr(slave.raw, TCSANOW, &settings))
            }
            if let window = plan.window {
                try check(
                    "set the window of", "/dev/pts/ptmx",
                    martlet_agent_set_window(master.raw, window.rows, window.columns))
            }
        } catch {
            throw AgentFailure(error).during("open a terminal")
        }
    }

    private static func isOnDevpts(_ file: SharedDescriptor) throws(SystemError) -> Bool {
        var facts = statfs()
        try check("fstatfs", "/dev/pts/ptmx", fstatfs(file.raw, &facts))
        return facts.f_type == 0x1cd1  // DEVPTS_SUPER_MAGIC of linux/magic.h
    }

    /// Shows the terminal as the container's /dev/console: by its descriptor, since its name may be another's by now
    /// (CVE-2025-52565).
    func makeConsole(_ root: RootDirectory) throws(AgentFailure) {
        try during("mount the terminal on /dev/console") {
            try MountSteps(root: root).bindFile(slave, over: "/dev/console")
        }
    }

    /// Makes it the calling process's stdin, stdout and stderr, and its controlling terminal. Needs a new session.
    func attach() throws(AgentFailure) {
        try during("attach the terminal") {
            for number: Int32 in 0...2 { try check("dup2", "\(number)", dup2(slave.raw, number)) }
            try check("take the controlling terminal", "", martlet_agent_set_controlling_terminal(0))
        }
    }
}
