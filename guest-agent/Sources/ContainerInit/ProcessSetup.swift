import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Applies a process's plan to the calling process, from inside the container's root, up to the execution of its program.
struct ProcessSetup {
    let plan: ProcessPlan

    /// Who the process becomes.
    struct Identity {
        var uid: UInt32
        var gid: UInt32
        var groups: [UInt32]
        var home: String
    }

    /// The program to execute, found, with its environment.
    struct Program {
        var path: String
        var environment: [String]
    }

    func apply(terminal: Terminal?) throws(AgentFailure) -> Program {
        let identity = try identity()
        setsid()
        try terminal?.attach()
        chownStreams(to: identity)
        try setLimits()
        try SchedulingSteps(plan: plan).apply()
        // A kernel without keyrings has nothing to keep apart.
        if martlet_agent_join_session_keyring() != 0, Glibc.errno != ENOSYS {
            throw AgentFailure(SystemError.last("join a new session keyring"))
        }
        umask(mode_t(plan.umask))
        let entered = try enterWorkingDirectory(retryOnDenial: true)
        // Without "no new privileges" only CAP_SYS_ADMIN may load a filter; with it that is the last thing done (see ContainerInit).
        if !plan.noNewPrivileges { try plan.seccomp?.load() }
        try become(identity)
        if !entered { _ = try enterWorkingDirectory(retryOnDenial: false) }
        if plan.noNewPrivileges {
            try during("no new privileges") { try check("prctl", "", martlet_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) }
        }
        return Program(path: try ProgramSearch(plan: plan).path(), environment: environment(home: identity.home))
    }

    /// The process's environment, with the user's home directory where `HOME` is missing or empty.
    private func environment(home: String) -> [String] {
        // By bytes: a character can be "=" and more.
        if plan.environment.contains(where: { $0.utf8.starts(with: "HOME=".utf8) && $0.utf8.count > 5 }) {
            return plan.environment
        }
        return plan.environment.filter { $0 != "HOME=" } + ["HOME=\(home)"]
    }

    private func identity() throws(AgentFailure) -> Identity {
        let accounts = Accounts(passwd: accountFile("/etc/passwd"), group: accountFile("/etc/group"))
        if plan.userName.isEmpty {
            let home = accounts.user(plan.uid)?.home ?? ""
            return Identity(uid: plan.uid, gid: plan.gid, groups: plan.groups, home: home.isEmpty ? "/" : home)
        }
        guard let user = accounts.user(named: plan.userName) else {
            throw AgentFailure(.invalidArgument, "user \(plan.userName): not in the container's /etc/passwd")
        }
        let groups = accounts.supplementaryGroups(of: user) + plan.groups
        return Identity(uid: user.uid, gid: user.gid, groups: groups, home: user.home.isEmpty ? "/" : user.home)
    }

    /// Empty where there is no such file: an image need not have one.
    private func accountFile(_ path: String) -> String {
        // A fifo must not block the start.
        guard let file = try? OwnedDescriptor.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY) else { return "" }
        var information = stat()
        guard fstat(file.raw, &information) == 0, information.st_mode & S_IFMT == S_IFREG else { return "" }
        return (try? readText(file.raw, path)) ?? ""
    }

    /// Makes the process's user the owner of its pipes and terminal, so that it can open them anew (/dev/stdout).
    private func chownStreams(to identity: Identity) {
        for number: Int32 in 0...2 {
            var information = stat()
            guard fstat(number, &information) == 0 else { continue }
            let isTerminal = plan.terminal && information.st_mode & S_IFMT == S_IFCHR
            guard isTerminal || information.st_mode & S_IFMT == S_IFIFO else { continue }
            // Some file systems refuse; the streams that are open already work all the same.
            _ = fchown(number, identity.uid, gid_t.max)
        }
    }

    private func setLimits() throws(AgentFailure) {
        var limits = plan.limits
        if !limits.contains(where: { $0.resource == Int32(RLIMIT_NOFILE.rawValue) }) {
            var own = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &own)
            // The kernel's own soft limit, not the agent's: programs that use select(2) rely on it.
            limits.append(
                .init(
                    resource: Int32(RLIMIT_NOFILE.rawValue), soft: min(1024, UInt64(own.rlim_max)),
                    hard: UInt64(own.rlim_max)))
        }
        for limit in limits {
            try during("set resource limit \(limit.resource) to \(limit.soft), \(limit.hard)") {
                var value = rlimit(rlim_cur: rlim_t(limit.soft), rlim_max: rlim_t(limit.hard))
                try check("setrlimit", "", setrlimit(__rlimit_resource_t(UInt32(limit.resource)), &value))
            }
        }
    }

    /// Answers whether it was entered; with `retryOnDenial` a directory that is closed to root is left for later.
    private func enterWorkingDirectory(retryOnDenial: Bool) throws(AgentFailure) -> Bool {
        let path = plan.workingDirectory
        if chdir(path) != 0 {
            let error = Glibc.errno
            if retryOnDenial, error == EACCES { return false }
            throw .program("chdir to cwd (\"\(path)\") set in config.json failed", errno: error)
        }
        // A directory outside the root, come by through some descriptor: the kernel then gives a path without a root.
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        guard getcwd(&buffer, buffer.count) != nil, buffer[0] == CChar(bitPattern: UInt8(ascii: "/")) else {
            throw AgentFailure(.invalidArgument, "cwd \(path): outside the container's root")
        }
        return true
    }

    private func become(_ identity: Identity) throws(AgentFailure) {
        try during("become user \(identity.uid), group \(identity.gid)") {
            let sets = plan.capabilities
            try Privileges.dropBounding(keeping: sets.bounding)
            try check("prctl", "keep capabilities", martlet_prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
            var groups = identity.groups
            try check("setgroups", "\(groups)", setgroups(groups.count, &groups))
            try check("setresgid", "\(identity.gid)", martlet_agent_setresgid(identity.gid))
            try check("setresuid", "\(identity.uid)", martlet_agent_setresuid(identity.uid))
            try check("prctl", "keep capabilities", martlet_prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))
            try check("capset", "", martlet_agent_capset(sets.effective, sets.permitted, sets.inheritable))
            // The kernel has no others; `runc spec` names them, and runc passes over them.
            try Privileges.setAmbient(sets.ambient & sets.inheritable & sets.permitted)
        }
    }
}

/// The capability sets that prctl(2) changes.
private enum Privileges {
    // linux/capability.h, linux/prctl.h.
    static let ambient: Int32 = 47
    static let raise: UInt = 2
    static let clearAll: UInt = 4

    static func dropBounding(keeping kept: UInt64) throws(SystemError) {
        for number in 0..<UInt(64) {
            // EINVAL: beyond the last one that this kernel knows.
            guard martlet_prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0 else { return }
            if kept & 1 << UInt64(number) == 0 {
                try check("prctl", "drop capability \(number)", martlet_prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
            }
        }
    }

    static func setAmbient(_ set: UInt64) throws(SystemError) {
        try check("prctl", "clear ambient capabilities", martlet_prctl(ambient, clearAll, 0, 0, 0))
        for number in 0..<UInt(64) where set & 1 << UInt64(number) != 0 {
            try check("prctl", "raise ambient capability \(number)", martlet_prctl(ambient, raise, number, 0, 0))
        }
    }
}
