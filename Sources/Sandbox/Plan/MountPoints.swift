import CLinux
import Glibc
import LinuxSystem

extension SandboxPlan.Container {
    /// Makes the directories and files that the container's mounts and its working directory need and its root file system
    /// lacks, as runtimes do.
    ///
    /// Only for a read-only root: the guest gets that read-only from the file device, so it can't make them itself. What can't
    /// be made, as on a file system that is read-only itself, is left to the guest's own error.
    ///
    /// - Parameter root: the root file system's directory, with the mounts in it.
    func makeMountPoints(root: Int32) {
        guard let readOnly = spec.root?.readonly, readOnly,
            let own = try? OwnedDescriptor.open(".", O_PATH | O_DIRECTORY, at: root)
        else { return }
        let directory = RootDirectory(SharedDescriptor(own))
        let points = spec.mounts.map(\.destination)
        let files = Set(spec.mounts.filter { $0.isBind && isFile($0.source) }.map(\.destination))
        for point in points + ["/dev", "/proc", "/sys"] {
            _ = try? directory.makeMountPoint(point, isDirectory: !files.contains(point))
        }
        // In a mount the guest makes it.
        if let cwd = spec.process?.cwd, !points.contains(where: { Self.leads(from: $0, to: cwd) }) {
            _ = try? directory.makeDirectories(cwd)
        }
    }

    /// Whether a path is another or lies below it.
    private static func leads(from path: String, to other: String) -> Bool {
        RootDirectory.components(other).starts(with: RootDirectory.components(path))
    }

    /// Whether a bind mount's source, which is a share's mount point in the guest, is a file or a socket on the host.
    private func isFile(_ guestSource: String) -> Bool {
        if sockets.contains(where: { $0.mountPoint == guestSource }) { return true }
        guard let share = shares.first(where: { $0.mountPoint == guestSource }) else { return false }
        var facts = stat()
        return stat(share.source, &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG
    }
}
