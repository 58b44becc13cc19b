import AgentAPI
import Glibc
import LinuxSystem

/// Replaces the content of a volume as a whole, in the steps of kubelet's AtomicWriter, so that programs that watch it see what
/// they would see on a host: a new directory is there already; `..data` changes its target by a rename; links into it come and
/// go; the old directory goes last.
///
/// Source: kubernetes, pkg/volume/util/atomic_writer.go.
struct VolumePublication {
    let root: SharedDescriptor
    let path: String

    private static let data = "..data"
    private static let temporary = "..data_tmp"

    /// - Parameters:
    ///   - directory: the name of the new one.
    ///   - links: all that there are to be beside it.
    func publish(_ directory: String, _ links: [AgentVolumeEntry]) throws(SystemError) {
        if linkTarget(Self.data, at: root.raw) != Array(directory.utf8) {
            if unlinkat(root.raw, Self.temporary, 0) != 0, Glibc.errno != ENOENT {
                throw SystemError.last("unlink", Self.temporary)
            }
            try check("symlink", Self.temporary, symlinkat(directory, root.raw, Self.temporary))
            try check("rename", Self.data, renameat(root.raw, Self.temporary, root.raw, Self.data))
        }
        for link in links where linkTarget(link.path, at: root.raw) != Array(link.data) {
            if unlinkat(root.raw, link.path, 0) != 0, Glibc.errno != ENOENT {
                throw SystemError.last("unlink", link.path)
            }
            try check("symlink", link.path, symlinkat(link.target, root.raw, link.path))
            try check("chown", link.path, fchownat(root.raw, link.path, link.uid, link.gid, AT_SYMLINK_NOFOLLOW))
        }
        let kept = Set(links.map(\.path) + [directory, Self.data])
        let others = try directoryNames(root.raw, path).filter { !kept.contains($0) }
        // Links before what they lead into.
        for name in others where linkTarget(name, at: root.raw) != nil { try removeTree(name, at: root.raw, path) }
        for name in others { try removeTree(name, at: root.raw, path) }
    }

    /// Removes a file, or a directory and all in it; no link is followed. What is not there needs nothing.
    private func removeTree(_ name: String, at directory: Int32, _ path: String) throws(SystemError) {
        let path = "\(path)/\(name)"
        if unlinkat(directory, name, 0) == 0 || Glibc.errno == ENOENT { return }
        guard Glibc.errno == EISDIR else { throw SystemError.last("unlink", path) }
        let inside = try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory)
        for entry in try directoryNames(inside.raw, path) { try removeTree(entry, at: inside.raw, path) }
        try check("rmdir", path, unlinkat(directory, name, AT_REMOVEDIR))
    }
}
