import CLinux
import Glibc
import LinuxSystem

/// A procfs that is one: no directory that someone put in its place, and nothing behind a link (CVE-2025-31133, CVE-2025-52881).
struct ProcDirectory {
    /// PROC_SUPER_MAGIC of linux/magic.h, and the number of the root's inode.
    private static let (magic, rootInode): (Int, ino_t) = (0x9fa0, 1)
    private let directory: RootDirectory

    /// The procfs at /proc of `root`; nil where there is none.
    init?(of root: RootDirectory) throws(SystemError) {
        let found: SharedDescriptor
        do throws(SystemError) {
            found = try root.openWithoutLinks("/proc", O_PATH | O_DIRECTORY)
        } catch {
            if [.noSuchFileOrDirectory, .notDirectory, .tooManySymbolicLinkLevels].contains(error.errno) { return nil }
            throw error
        }
        var facts = statfs()
        try check("fstatfs", "/proc", fstatfs(found.raw, &facts))
        guard facts.f_type == Self.magic, try found.information().st_ino == Self.rootInode else {
            return nil
        }
        directory = RootDirectory(found)
    }

    /// Opens a path that begins with /proc.
    ///
    /// - Returns: nil where that is no file of a procfs: another path, no procfs there, or something that is mounted below it.
    static func open(_ path: String, of root: RootDirectory) throws(SystemError) -> SharedDescriptor? {
        let components = RootDirectory.components(path)
        guard components.first == "proc", let proc = try ProcDirectory(of: root) else { return nil }
        do throws(SystemError) {
            return try proc.directory.openOnSameMount(components.dropFirst().joined(separator: "/"), O_PATH)
        } catch {
            if error.errno == .improperLink { return nil }
            throw error
        }
    }

    /// Writes a kernel parameter of the calling process's namespaces.
    ///
    /// - Parameter path: below `sys`; no `..`.
    func write(_ value: String, toParameter path: String) throws(SystemError) {
        let file: SharedDescriptor
        do throws(SystemError) {
            file = try directory.openOnSameMount("sys/" + path, O_WRONLY)
        } catch { throw SystemError("open", "/proc/sys/" + path, errno: error.errno) }
        var value = value
        let count = try retrying("write", path) { value.withUTF8 { Glibc.write(file.raw, $0.baseAddress, $0.count) } }
        // The kernel takes a value in one write.
        guard count == value.utf8.count else { throw SystemError("write", path, errno: .ioError) }
    }
}
