import Glibc
import GuestSystem
import LinuxSystem

/// A container's cgroup (cgroup v2): its processes start in it, are listed by it and killed with it.
struct Cgroup: Sendable {
    let path: String

    /// Makes it below `parent`, which is made too where it is missing.
    static func make(_ name: String, below parent: String) throws(SystemError) -> Cgroup {
        try makeDirectories(parent)
        if let above = parent.lastIndex(of: "/") { enableControllers(String(parent[..<above])) }
        enableControllers(parent)
        let path = parent + "/" + name
        try check("mkdir", path, mkdir(path, 0o755))
        return Cgroup(path: path)
    }

    /// Enables for the groups below every controller that this one has (cgroup-v2.rst, Enabling and Disabling). One that can't be
    /// passed on, as on a host whose version 1 has it, is only missing there.
    private static func enableControllers(_ group: String) {
        guard let controllers = try? readText(group + "/cgroup.controllers") else { return }
        for controller in controllers.split(whereSeparator: \.isWhitespace) {
            try? writeText("+\(controller)", to: group + "/cgroup.subtree_control")
        }
    }

    func open() throws(SystemError) -> OwnedDescriptor { try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY) }

    /// The cgroup below this one that a process is in; nil where it is in this one or elsewhere.
    func descendant(of process: pid_t) -> Cgroup? {
        // The unified hierarchy's line (cgroups(7), /proc/PID/cgroup). The agent is in the root of the cgroup namespace.
        let lines = (try? readText("/proc/\(process)/cgroup"))?.split(separator: "\n") ?? []
        guard let line = lines.first(where: { $0.hasPrefix("0::/") }) else { return nil }
        let inner = Cgroup(path: GuestMounts.cgroups + line.dropFirst(3))
        return inner.path.hasPrefix(path + "/") ? inner : nil
    }

    /// The cgroup at a path below this one; empty or `/`: this one.
    ///
    /// - Throws: for one that is not there, or would not be below.
    func below(_ name: String) throws(AgentFailure) -> Cgroup {
        let parts = name.split(separator: "/")
        guard !parts.contains("..") else {
            throw AgentFailure(.invalidArgument, "cgroup: \(name) is not a sub cgroup path")
        }
        let inner = Cgroup(path: ([path[...]] + parts).joined(separator: "/"))
        guard access(inner.path + "/cgroup.procs", F_OK) == 0 else {
            throw AgentFailure(.notFound, "cgroup: \(SystemError.last("open", "\(name)/cgroup.procs"))")
        }
        return inner
    }

    /// The processes of it and of those below.
    func processes() throws(SystemError) -> [UInt32] {
        var all: [UInt32] = []
        for group in try withDescendants() {
            do {
                let text = try readText(group + "/cgroup.procs")
                all += text.split(separator: "\n").compactMap { UInt32($0) }.filter { $0 != 0 }
            } catch  where error.errno == .noSuchFileOrDirectory || error.errno.rawValue == ENODEV {
                // The container removed it just now.
                continue
            }
        }
        return all
    }

    /// How many of its processes the kernel has killed because memory ran out, its own limit's or the whole guest's; 0 where there
    /// is no memory controller (cgroup-v2.rst, memory.events).
    var oomKills: UInt64 { numbers("memory.events")["oom_kill"] ?? 0 }

    /// SIGKILL to every process in it and below, also to those that start meanwhile.
    func kill() throws(SystemError) { try writeText("1", to: path + "/cgroup.kill") }

    /// Kills what is left and takes it away; throws when processes do not go.
    func remove(within limit: Duration = .seconds(10)) throws(SystemError) {
        guard access(path, F_OK) == 0 else { return }
        try kill()
        let clock = ContinuousClock()
        let end = clock.now + limit
        while true {
            for group in try withDescendants().reversed() { rmdir(group) }
            if access(path, F_OK) != 0 { return }
            if clock.now > end { throw SystemError("rmdir", path, errno: .resourceBusy) }
            usleep(2000)
        }
    }

    /// Itself first, then what is below, parents before children.
    private func withDescendants() throws(SystemError) -> [String] {
        var all = [path]
        var next = 0
        while next < all.count {
            let group = all[next]
            next += 1
            all += Self.names(in: group, ofType: DT_DIR).map { "\(group)/\($0)" }
        }
        return all
    }

    /// Of its files.
    func names() -> [String] { Self.names(in: path, ofType: DT_REG) }

    /// Empty when the container removed the group just now.
    private static func names(in group: String, ofType type: Int) -> [String] {
        guard let directory = opendir(group) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            guard entry.pointee.d_type == UInt8(type) else { continue }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
