import Glibc
import LinuxSystem

/// The cgroup of the host that a pod's processes live in: one directory in each hierarchy that is mounted, of
/// version 1, of version 2, or of both.
///
/// The server joins before it starts anything, so that everything it starts is in there too.
///
/// Source: runtime-spec, config-linux.md, "Cgroups Path"; Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
struct HostCgroup: Sendable {
    /// The directories that are the pod's own.
    let directories: [String]
    /// Where this process was before.
    private let previous: [String]

    /// A hierarchy: where it is mounted, which of its cgroups is mounted there, and its name in /proc/PID/cgroup.
    private struct Hierarchy {
        var mountPoint: String
        var root: String
        /// `memory`, `name=systemd`; empty for version 2.
        var name: String
    }

    /// The directories of the cgroup at `path`.
    static func directories(at path: HostCgroupPath) throws -> [String] {
        hierarchies(try MountEntry.all()).map { $0.mountPoint + path.path }
    }

    /// Makes the cgroups at `path` with limits, and moves this process there.
    ///
    /// - Parameter others: processes that come along.
    init(
        joining path: HostCgroupPath, _ limits: HostCgroupLimits = HostCgroupLimits(), with others: [pid_t] = []
    ) throws {
        let own = Self.memberships(try readText("/proc/self/cgroup"))
        let hierarchies = Self.hierarchies(try MountEntry.all())
        directories = hierarchies.map { $0.mountPoint + path.path }
        previous = hierarchies.map { hierarchy in
            own[hierarchy.name].map { hierarchy.mountPoint + Self.below(hierarchy.root, $0) } ?? hierarchy.mountPoint
        }
        do {
            try Self.make(path, hierarchies, pid: getpid(), limits)
            for process in others { try Self.move(process, to: directories) }
        } catch {
            leave()
            throw error
        }
    }

    /// Makes the cgroups at `path`, and moves a process there.
    ///
    /// - Returns: their directories; with an error none is left.
    static func make(_ path: HostCgroupPath, pid: pid_t) throws -> [String] {
        let hierarchies = hierarchies(try MountEntry.all())
        let directories = hierarchies.map { $0.mountPoint + path.path }
        do { try make(path, hierarchies, pid: pid, HostCgroupLimits()) } catch {
            for directory in directories { rmdir(directory) }
            throw error
        }
        return directories
    }

    private static func make(
        _ path: HostCgroupPath, _ hierarchies: [Hierarchy], pid: pid_t, _ limits: HostCgroupLimits
    ) throws {
        if let scope = path.scope, SystemdScope.isThere { try SystemdScope.start(path, scope, pid: pid, limits) }
        for hierarchy in hierarchies {
            try make(hierarchy.mountPoint + path.path, below: hierarchy.mountPoint)
        }
        let directories = hierarchies.map { $0.mountPoint + path.path }
        try limits.apply(to: directories)
        try move(pid, to: directories)
    }

    /// Refuses a cgroup that somebody else uses, in runc's words: its limits would be changed, and with the pod it would be removed.
    /// Processes of a pod that had it before may still be ending. A scope of systemd is made anew.
    ///
    /// - Parameter own: processes that may be there.
    /// - Throws: `SandboxError.wrongState` for one with processes, and for one that is frozen.
    static func requireUnused(_ path: HostCgroupPath, but own: [pid_t]) throws {
        if path.scope != nil || path.isOwn { return }
        let directories = try directories(at: path)
        let end = ContinuousClock.now + .seconds(2)
        for directory in directories {
            while true {
                let processes = ((try? readText("\(directory)/cgroup.procs")) ?? "").split(separator: "\n")
                    .compactMap { pid_t($0) }.filter { !own.contains($0) }
                if processes.isEmpty { break }
                guard ContinuousClock.now < end else {
                    throw SandboxError.wrongState(
                        "container's cgroup is not empty: \(processes.count) process(es) found in \(directory)")
                }
                usleep(10_000)
            }
            // Version 1's file, and version 2's.
            for (file, frozen) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")]
            where (try? readText("\(directory)/\(file)"))?.split(separator: "\n").first == frozen[...] {
                throw SandboxError.wrongState("container's cgroup unexpectedly frozen: \(directory)/\(file)")
            }
        }
    }

    /// Moves a process to a cgroup.
    static func move(_ pid: pid_t, to directories: [String]) throws {
        for directory in directories { try writeText("\(pid)", to: "\(directory)/cgroup.procs") }
    }

    /// Moves a child of this process, which is no part of the pod, to where this process was before.
    func expel(_ pid: pid_t) throws { try Self.move(pid, to: previous) }

    /// Moves this process back, with those it has started that outlive the pod (a logging program that still writes), and
    /// removes the cgroups.
    func leave() {
        for (directory, before) in zip(directories, previous) {
            try? Self.move(getpid(), to: [before])
            for process in ((try? readText("\(directory)/cgroup.procs")) ?? "").split(separator: "\n") {
                // They are of sessions whose leaders are this process's children. Others are somebody else's.
                guard let pid = Int32(process), ProcessStatus.parent(of: getsid(pid)) == getpid()
                else { continue }
                // One that has ended meanwhile is gone anyway.
                try? writeText(String(process), to: "\(before)/cgroup.procs")
            }
        }
        Self.remove(directories)
    }

    /// `leave`, which may wait, on a thread of its own.
    func release() async { _ = try? await onThread("cgroup end") { leave() } }

    /// Removes cgroups whose processes have ended or are about to; waits for that, two seconds in all.
    static func remove(_ directories: [String]) {
        let end = ContinuousClock.now + .seconds(2)
        for directory in directories {
            while rmdir(directory) != 0, errno == EBUSY, ContinuousClock.now < end { usleep(10_000) }
            let parent = directory.prefix(upTo: directory.lastIndex(of: "/") ?? directory.startIndex)
            if parent.hasSuffix(HostCgroupPath.ownParent) { rmdir(String(parent)) }
        }
    }

    private static func make(_ directory: String, below mountPoint: String) throws {
        var path = mountPoint
        for part in directory.dropFirst(mountPoint.count).split(separator: "/") {
            let parent = path
            path += "/" + part
            // Version 2's. One that the cgroup above does not have, or can't give, is missed when a limit is written.
            for name in HostCgroupLimits.controllers where access("\(parent)/cgroup.subtree_control", F_OK) == 0 {
                try? writeText("+\(name)", to: "\(parent)/cgroup.subtree_control")
            }
            // The end of another pod may have removed the cgroup above just now.
            for _ in 0..<100 where mkdir(path, 0o755) != 0 && errno == ENOENT { mkdir(parent, 0o755) }
            if access(path, F_OK) != 0 { throw SystemError.last("mkdir", path) }
            try fillCpuset(path, from: parent)
        }
    }

    /// Gives a cgroup of version 1's cpuset the CPUs and the memory nodes of the cgroup above it where it has none: no
    /// process can join it before (cgroup-v1/cpusets.rst, section 2). One that exists may have none too; runc does the same.
    private static func fillCpuset(_ path: String, from parent: String) throws {
        guard access("\(path)/cgroup.clone_children", F_OK) == 0 else { return }
        for name in ["cpuset.cpus", "cpuset.mems"] where access("\(path)/\(name)", F_OK) == 0 {
            guard try readText("\(path)/\(name)").allSatisfy(\.isWhitespace) else { continue }
            try writeText(try readText("\(parent)/\(name)"), to: "\(path)/\(name)")
        }
    }

    /// Of each hierarchy the first place where it is mounted.
    private static func hierarchies(_ mounts: [MountEntry]) -> [Hierarchy] {
        var found: [Hierarchy] = []
        for mount in mounts {
            let name: String
            switch mount.type {
            case "cgroup2": name = ""
            case "cgroup":
                name = mount.options.filter { !["rw", "ro"].contains($0) && !$0.contains("agent=") }
                    .joined(separator: ",")
            default: continue
            }
            if !found.contains(where: { $0.name == name }) {
                found.append(Hierarchy(mountPoint: mount.mountPoint, root: mount.root, name: name))
            }
        }
        return found
    }

    /// /proc/PID/cgroup: the cgroup by the hierarchy's name.
    private static func memberships(_ text: String) -> [String: String] {
        var groups: [String: String] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
            if fields.count == 3 { groups[fields[1]] = fields[2] }
        }
        return groups
    }

    /// A cgroup's path as it is seen where only those below `root` are mounted.
    private static func below(_ root: String, _ path: String) -> String {
        root != "/" && path.hasPrefix(root) ? String(path.dropFirst(root.count)) : path == "/" ? "" : path
    }
}
