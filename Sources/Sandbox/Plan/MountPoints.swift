import CLinux
import Glibc
import LinuxSystem

extension SandboxPlan.Container {
    /// Makes the directories and files that the container's mounts need and its root file system lacks, as runc does.
    ///
    /// Only for a read-only root: the guest gets that read-only from the file device, so it can't make them itself. Paths
    /// are resolved inside the root whatever its symbolic links say (openat2(2), RESOLVE_IN_ROOT). What can't be made, as
    /// on a file system that is read-only itself, is left to the guest's own error.
    ///
    /// - Parameter root: the root file system's directory, with the mounts in it.
    func makeMountPoints(root: Int32) {
        guard let readOnly = spec.root?.readonly, readOnly else { return }
        let points = spec.mounts.map(\.destination) + ["/dev", "/proc", "/sys"]
        let files = Set(spec.mounts.filter { $0.isBind && isFile($0.source) }.map(\.destination))
        for point in points { make(point, root: root, asFile: files.contains(point)) }
    }

    /// Whether a bind mount's source, which is a share's mount point in the guest, is a file on the host.
    private func isFile(_ guestSource: String) -> Bool {
        guard let share = shares.first(where: { $0.mountPoint == guestSource }) else { return false }
        var facts = stat()
        return stat(share.source, &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG
    }

    private func make(_ path: String, root: Int32, asFile: Bool) {
        var reached = "."
        let names = path.split(separator: "/").filter { $0 != "." }
        for (index, name) in names.enumerated() {
            let next = reached + "/" + name
            if let there = open(next, root: root, O_RDONLY) {
                _ = there
            } else {
                guard errno == ENOENT, let parent = open(reached, root: root, O_RDONLY | O_DIRECTORY), name != ".."
                else { return }
                if asFile && index == names.count - 1 {
                    let file = openat(
                        parent.raw, String(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o644)
                    if file >= 0 { close(file) }
                    return
                }
                guard mkdirat(parent.raw, String(name), 0o755) == 0 else { return }
            }
            reached = next
        }
    }

    private func open(_ path: String, root: Int32, _ flags: Int32) -> SharedDescriptor? {
        // O_PATH: neither a fifo nor a device is opened by being there.
        let how = UInt64(UInt32(bitPattern: flags | O_CLOEXEC | martlet_O_PATH))
        let descriptor = martlet_openat2(
            root, path, how, 0, UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS))
        return descriptor < 0 ? nil : SharedDescriptor(OwnedDescriptor(owning: descriptor))
    }
}
