import CLinux
import CSeccomp
import Glibc
import LinuxSystem

/// Puts the calling process into its jail.
public enum Jail {
    /// What the process has in the jail that it could not get there.
    public struct Contents: Sendable {
        /// The root of a procfs of the process's own pid namespace, where the plan has one.
        public var procfs: SharedDescriptor?
    }

    /// Gives up everything that the plan does not name, for good. To be called before the process starts a thread, because
    /// credentials belong to a thread.
    ///
    /// - Parameters:
    ///   - lifeline: a socket whose other end the parent has, where the plan has the process end with its parent.
    ///   - tree: a detached mount that becomes the root; nil: an empty directory.
    ///   - onTrap: says what a system call outside of the filter leads to: the end of the process.
    ///   - before: what still needs privileges: called in the new namespaces, with the new root.
    /// - Throws: the step that failed. The process must end then.
    public static func enter(
        _ plan: JailPlan, lifeline: Int32? = nil, tree: SharedDescriptor? = nil,
        onTrap: () -> Void = { martlet_seccomp_end_on_trap(SystemCallFilter.exitCode) },
        before: () throws(SystemError) -> Void = {}
    ) throws(SystemError) -> Contents {
        var contents = Contents()
        // Only whoever starts a process can give it one.
        if plan.namespaces.contains(.pid), isInPIDNamespaceOfProcfs() {
            throw SystemError("enter the jail", "no pid namespace of its own", errno: .notPermitted)
        }
        let canSetGroups = (try? readText("/proc/self/setgroups")) != "deny\n"
        let flags = plan.namespaces.filter { $0 != .pid }.reduce(0) { $0 | $1.flag }
        try check("unshare", "\(plan.namespaces.map(\.rawValue))", martlet_unshare(flags))
        if plan.namespaces.contains(.uts) { try check("sethostname", "martlet", sethostname("martlet", 7)) }
        if plan.procfs {
            contents.procfs = SharedDescriptor(
                OwnedDescriptor(owning: try check("mount", "procfs", martlet_new_procfs())))
        }
        let programs = try compile(plan.filters)
        let root = if let tree { tree } else { try JailRoot.make(plan.root) }
        try check("enter", "root", martlet_enter_root(root.raw))
        try before()
        try plan.limits.apply()
        try dropPrivileges(
            user: plan.user, keeping: plan.capabilities, canSetGroups: canSetGroups)
        if plan.endsWithParent { try endWithParent(lifeline) }
        if !programs.isEmpty { onTrap() }
        try filter(by: programs)
        return contents
    }

    /// Becomes another program in its jail, with this process's environment.
    ///
    /// - Parameter command: the program's path in the jail, and its arguments.
    /// - Throws: when it could not; otherwise it does not return.
    public static func execute(_ command: [String], _ plan: JailPlan, lifeline: Int32?) throws(SystemError) -> Never {
        _ = try enter(plan, lifeline: lifeline)
        var words = command.map { strdup($0) } + [nil]
        execv(command[0], &words)
        throw .last("exec", command[0])
    }

    private static func compile(_ filters: [SystemCallFilter]) throws(SystemError) -> [SystemCallFilter.Program] {
        var programs: [SystemCallFilter.Program] = []
        for filter in filters { programs.append(try filter.compile()) }
        // libseccomp has used more memory than the rest of a small process ever will.
        martlet_trim_memory()
        return programs
    }

    /// Has this thread obey the first program, and with it those that it starts; of these, those that have one of their own obey
    /// that too.
    private static func filter(by programs: [SystemCallFilter.Program]) throws(SystemError) {
        guard let first = programs.first else { return }
        try first.load()
        guard programs.count > 1 else { return }
        beginThreads { name in
            guard let own = programs.first(where: { $0.names.contains(where: name.hasPrefix) }) else { return }
            do { try own.load() } catch {
                let line = Array("thread \(name): \(error)\n".utf8)
                _ = write(STDERR_FILENO, line, line.count)
                _exit(1)
            }
        }
    }

    /// Whether /proc, as the parent sees it, calls this process as it calls itself.
    private static func isInPIDNamespaceOfProcfs() -> Bool {
        symbolicLink("/proc/self") == "\(getpid())"
    }

    /// Becomes a user with a few capabilities at most, for good: executing a program brings none back. To be called before the
    /// process starts a thread.
    ///
    /// - Parameters:
    ///   - user: user and group.
    ///   - canSetGroups: false: in a user namespace with a single id nobody may; the process keeps those that it has.
    /// - Throws: the step that failed. The process must end then.
    public static func dropPrivileges(
        user: UInt32, keeping capabilities: Capabilities = [], canSetGroups: Bool = true
    ) throws(SystemError) {
        for capability in 0..<64 where capabilities.rawValue & 1 << UInt64(capability) == 0 {
            if martlet_prctl(PR_CAPBSET_DROP, UInt(capability), 0, 0, 0) == 0 { continue }
            if errno == EINVAL { break }  // the kernel knows no more capabilities
            throw .last("prctl PR_CAPBSET_DROP", "\(capability)")
        }
        try check("prctl PR_CAP_AMBIENT", "", martlet_prctl(PR_CAP_AMBIENT, UInt(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
        if canSetGroups { try check("setgroups", "", setgroups(0, nil)) }
        try check("setresgid", "\(user)", setresgid(user, user, user))
        // Keep the capabilities across the change of the user, so that capset can choose from them.
        try check("prctl PR_SET_KEEPCAPS", "", martlet_prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        try check("setresuid", "\(user)", setresuid(user, user, user))
        try check("capset", "", martlet_capset(capabilities.rawValue, capabilities.rawValue))
        try check("prctl PR_SET_KEEPCAPS", "", martlet_prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))
        try check("prctl PR_SET_NO_NEW_PRIVS", "", martlet_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        // Last: a change of credentials changes it.
        try check("prctl PR_SET_DUMPABLE", "", martlet_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    }

    /// Makes the kernel send SIGKILL to this process when the thread that started it ends. A change of credentials clears this
    /// setting.
    private static func endWithParent(_ lifeline: Int32?) throws(SystemError) {
        try check("prctl PR_SET_PDEATHSIG", "", martlet_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0))
        // The parent may have ended before the call.
        guard let lifeline else { return }
        var item = pollfd(fd: lifeline, events: 0, revents: 0)
        if poll(&item, 1, 0) > 0, item.revents & Int16(POLLHUP | POLLERR) != 0 {
            throw SystemError("prctl PR_SET_PDEATHSIG", "the parent", errno: .noSuchProcess)
        }
    }
}

extension JailPlan.Limits {
    fileprivate func apply() throws(SystemError) {
        try Self.set(RLIMIT_CORE, "RLIMIT_CORE", core)
        if let fileSize { try Self.set(RLIMIT_FSIZE, "RLIMIT_FSIZE", fileSize) }
        if let threads { try Self.set(__RLIMIT_NPROC, "RLIMIT_NPROC", threads) }
        var limit = rlimit()
        try check("getrlimit", "RLIMIT_NOFILE", getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
        try Self.set(RLIMIT_NOFILE, "RLIMIT_NOFILE", min(openFiles ?? .max, UInt64(limit.rlim_max)))
    }

    private static func set(_ resource: __rlimit_resource, _ name: String, _ value: UInt64) throws(SystemError) {
        var limit = rlimit(rlim_cur: rlim_t(value), rlim_max: rlim_t(value))
        try check("setrlimit", name, setrlimit(__rlimit_resource_t(resource.rawValue), &limit))
    }
}
