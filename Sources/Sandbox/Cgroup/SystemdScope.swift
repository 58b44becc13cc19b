import Glibc
import LinuxSystem

/// Scopes of systemd: cgroups that systemd makes for processes which it has not started, and leaves to whoever asked for them.
///
/// Source: org.freedesktop.systemd1(5), StartTransientUnit; systemd's docs/CGROUP_DELEGATION.md.
enum SystemdScope {
    private static let limit = Duration.seconds(15)

    /// Whether systemd is this host's first process (sd_booted(3)).
    static var isThere: Bool {
        var facts = stat()
        return lstat("/run/systemd/system", &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
    }

    /// The arguments of busctl that make a scope with a process in it.
    static func arguments(_ scope: HostCgroupPath.Scope, pid: pid_t, _ limits: HostCgroupLimits) -> [String] {
        // systemd writes what it knows again when it is reloaded: it must know the limits.
        var properties: [[String]] = [
            ["Description", "s", "Martlet pod"], ["Slice", "s", scope.slice], ["Delegate", "b", "true"],
            ["DefaultDependencies", "b", "false"], ["PIDs", "au", "1", "\(pid)"],
        ]
        if let memory = limits.memory { properties.append(["MemoryMax", "t", "\(memory)"]) }
        if let pids = limits.pids { properties.append(["TasksMax", "t", "\(pids)"]) }
        if let weight = limits.weight { properties.append(["CPUWeight", "t", "\(weight)"]) }
        if let quota = limits.cpu?.quota, quota > 0 {
            let period = limits.cpu?.period ?? 0
            let (perSecond, overflow) = UInt64(quota).multipliedReportingOverflow(by: 1_000_000)
            if !overflow {
                properties.append(
                    ["CPUQuotaPerSecUSec", "t", "\(max(1, perSecond / (period == 0 ? 100_000 : period)))"])
            }
        }
        return [
            "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", scope.name, "replace",
            "\(properties.count)",
        ] + properties.flatMap { $0 } + ["0"]
    }

    /// Has systemd make a scope, and waits until the process is in it. Blocks.
    ///
    /// - Throws: `SandboxError.failed` with what busctl says.
    static func start(_ cgroup: HostCgroupPath, _ scope: HostCgroupPath.Scope, pid: pid_t, _ limits: HostCgroupLimits)
        throws
    {
        let places = ["/usr/bin/busctl", "/bin/busctl"]
        guard let program = places.first(where: { access($0, X_OK) == 0 }) else {
            throw SandboxError.failed("make \(scope.name) by systemd: there is no busctl")
        }
        let end = ContinuousClock.now + limit
        let (child, output) = try ChildProcess.withPipe(
            "busctl",
            .init(
                executable: program, arguments: arguments(scope, pid: pid, limits),
                descriptors: [-1, -1, ChildProcess.pipe], newSession: true, diesWithParent: true))
        guard let ended = child.waitForEnd(timeout: limit) else {
            child.signalGroup(SIGKILL)
            throw SandboxError.failed("make \(scope.name) by systemd: no answer within \(limit)")
        }
        guard ended == .exited(0) else {
            let words = (try? readText(output.raw, "busctl", limit: 4096)) ?? ""
            throw SandboxError.failed(
                "make \(scope.name) by systemd: busctl \(ended): \(words.split(separator: "\n").joined(separator: "; "))"
            )
        }
        // The reply names a job that is still to be done.
        while !isMember(pid, of: cgroup.path) {
            guard ContinuousClock.now < end else {
                throw SandboxError.failed("make \(scope.name) by systemd: process \(pid) was not moved within \(limit)")
            }
            usleep(5000)
        }
    }

    private static func isMember(_ pid: pid_t, of path: String) -> Bool {
        ((try? readText("/proc/\(pid)/cgroup")) ?? "").split(separator: "\n").contains { $0.hasSuffix(":\(path)") }
    }
}
