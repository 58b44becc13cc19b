import CLinux
import Glibc
import LinuxSystem

/// The mount namespace of a container's process on the host. Engines enter it to copy files into a running container and to list its
/// processes (`podman cp`, `podman top`): they must find the container's files there and no process but this one, and never the
/// host's.
struct ContainerFiles {
    /// Detached mounts, each with its path; the first is the root. None: the root is empty.
    var mounts: [(path: String, tree: SharedDescriptor)] = []

    /// What engines read in /proc beside a process's directory.
    private static let facts = ["stat", "uptime", "meminfo"]

    /// nil: it is empty.
    var root: SharedDescriptor? { mounts.first?.tree }

    /// What a container's /proc shows of the host: to be called while the host's is there.
    static func processEntries() throws(SystemError) -> [(name: String, tree: SharedDescriptor)] {
        var entries: [(name: String, tree: SharedDescriptor)] = []
        for name in ["\(getpid())"] + facts {
            entries.append((name, try cloneTree("/proc/\(name)", isRecursive: false)))
        }
        return entries
    }

    /// Mounts the container's files and these entries of /proc below the root, which is `root`. The process has all its
    /// privileges still.
    func place(_ entries: [(name: String, tree: SharedDescriptor)]) {
        for (path, tree) in mounts.dropFirst() { Self.place(tree, at: path) }
        if mount("tmpfs", "/proc", "tmpfs", Self.flags, "size=64k,mode=0555") == 0 {
            for (name, tree) in entries { Self.place(tree, at: "/proc/\(name)") }
        }
    }

    private static let flags = MountFlag.noSetID | MountFlag.noDevices | MountFlag.noExecution

    /// Mounts a tree, and makes the directory or file that it is mounted on where there is none, as the container would. One that
    /// can't be made is left out.
    private static func place(_ tree: SharedDescriptor, at path: String) {
        var facts = stat()
        guard fstat(tree.raw, &facts) == 0 else { return }
        let isDirectory = facts.st_mode & S_IFMT == S_IFDIR
        if stat(path, &facts) != 0 {
            let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            if isDirectory { try? makeDirectories(path) } else if !parent.isEmpty { try? makeDirectories(parent) }
            if !isDirectory, let file = try? OwnedDescriptor.open(path, O_CREAT | O_WRONLY, mode: 0o755) {
                _ = file.raw
            }
        }
        martlet_move_mount(tree.raw, "", AT_FDCWD, path, UInt32(MOVE_MOUNT_F_EMPTY_PATH))
    }
}
