import ContainerPlan
import GuestSystem
import LinuxSystem

/// The file system types that the guest's kernel has (proc(5), /proc/filesystems).
struct FileSystemTypes {
    let names: Set<String>

    init(names: Set<String>) { self.names = names }

    /// Those of the running kernel. The guest loads no module on demand, so the list is complete.
    init() throws(SystemError) { self.init(list: try readText("/proc/filesystems")) }

    /// - Parameter list: as /proc/filesystems has it: a name in each line, after a tab and perhaps `nodev`.
    init(list: String) {
        names = Set(list.split(separator: "\n").compactMap { $0.split(separator: "\t").last.map(String.init) })
    }

    /// - Throws: for a mount of a type that the kernel does not have, by the mount's name.
    func check(_ mounts: [ContainerPlan.MountPlan]) throws(AgentFailure) {
        for (index, mount) in mounts.enumerated() where !mount.options.isBind && !mount.options.isRemount {
            // `fuse.sshfs` is a fuse.
            let type = mount.type.split(separator: ".", maxSplits: 1).first.map(String.init) ?? ""
            if names.contains(type) { continue }
            let name = type.isEmpty ? "\"\"" : mount.type
            throw AgentFailure(
                .unimplemented,
                "mounts[\(index)].type (\(mount.destination)): \(name): no such file system in the guest")
        }
    }
}
