import CLinux
import Glibc
import OCISpec

extension [Mount] {
    private static var cgroups: String { "/sys/fs/cgroup" }

    /// Gives a container that is to have cgroups of the host, bound to where cgroups belong, the guest's in their place: engines
    /// do so for systemd in a container. A bind of a part, such as version 1's hierarchy for systemd, becomes one of the whole: the
    /// guest has one hierarchy, of version 2. It is writable if one of the binds was.
    ///
    /// - Parameter isCgroup: whether a path of the host is a cgroup file system.
    mutating func replaceHostCgroups(isCgroup: (String) -> Bool = isHostCgroup) {
        let bound = indices.filter { index in
            let (mount, path) = (self[index], self[index].destination)
            return mount.isBind && (path == Self.cgroups || path.hasPrefix(Self.cgroups + "/"))
                && isCgroup(mount.source)
        }
        guard let first = bound.first else { return }
        let writable = bound.contains { self[$0].options.last { ["ro", "rw"].contains($0) } != "ro" }
        // In the place of the mount that is there, or of the first bind.
        let place = firstIndex { $0.destination == Self.cgroups } ?? first
        self[place] = Mount(
            destination: Self.cgroups, type: "cgroup", source: "cgroup",
            options: ["nosuid", "noexec", "nodev", writable ? "rw" : "ro"])
        for index in bound.reversed() where index != place { remove(at: index) }
    }
}

/// Whether a path is in a cgroup file system, or where the host has its cgroups.
private func isHostCgroup(_ path: String) -> Bool {
    let types = [0x27_e0eb, 0x6367_7270]  // linux/magic.h
    var facts = statfs()
    return path == "/sys/fs/cgroup" || statfs(path, &facts) == 0 && types.contains(Int(facts.f_type))
}
