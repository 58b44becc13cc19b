import Glibc
import LinuxSystem

/// A control group of the host that a kubelet would make for a pod: in every hierarchy, version 1 and 2.
enum HostGroup {
    private static func directories(_ group: String) -> [String] {
        (Leftovers.read("/proc/self/mountinfo") ?? "").split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), fields[dash + 1].hasPrefix("cgroup") else { return nil }
            return "\(fields[4])\(group)"
        }
    }

    /// Makes it; `group` is its path below each root.
    static func make(_ group: String) throws {
        for directory in directories(group) {
            guard mkdir(directory, 0o755) == 0 else { throw LabError("mkdir \(directory): errno \(errno)") }
            // Version 1's cpuset takes no process before it has processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] where access("\(directory)/cgroup.clone_children", F_OK) == 0 {
                guard let inherited = Leftovers.read("\(directory)/../\(file)") else { continue }
                try writeText(inherited, to: "\(directory)/\(file)")
            }
        }
    }

    /// Limits its memory, in bytes.
    static func limit(_ group: String, memory: Int) throws {
        for directory in directories(group) {
            for file in ["memory.limit_in_bytes", "memory.max"] where access("\(directory)/\(file)", F_OK) == 0 {
                try writeText("\(memory)", to: "\(directory)/\(file)")
            }
        }
    }

    /// The groups below it.
    static func children(of group: String) -> [String] {
        directories(group).flatMap { directory in
            Leftovers.list(directory).map { "\(directory)/\($0)" }.filter { path in
                var facts = stat()
                return stat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
            }
        }
    }

    /// Removes it; what can't be removed is left for `Leftovers` to tell.
    static func remove(_ group: String) { for directory in directories(group) { rmdir(directory) } }
}
