import CLinux
import Glibc

/// Whiteouts of an overlayfs in the guest, whose upper layer is here: character devices with number 0:0.
///
/// A file system of the host that is an overlayfs itself refuses them, and so does RENAME_WHITEOUT there. On such an empty
/// file without permissions stands for one, marked by an extended attribute; the guest sees the device.
extension FileServer {
    private static let mark = OverlayAttribute.prefix + "whiteout"
    /// Of a directory: there may be marked files in it, so that READDIR has to find out which.
    private static let directoryMark = OverlayAttribute.prefix + "whiteouts"

    static func isWhiteout(type: UInt32, device: dev_t) -> Bool { type == S_IFCHR && device == 0 }

    /// mknod(2) of a whiteout, or what stands for it.
    ///
    /// - Returns: 0, or -1 with errno set.
    func makeWhiteout(_ directory: Int32, _ name: UnsafePointer<CChar>) -> Int32 {
        if mknodat(directory, name, S_IFCHR, 0) == 0 { return 0 }
        guard errno == EPERM else { return -1 }
        let file = createEntry(directory, name, O_WRONLY, 0)
        if file < 0 { return -1 }
        defer { close(file) }
        guard martlet_fsetxattr(file, Self.mark, "", 0, 0) == 0, markDirectory(directory) else {
            unlinkat(directory, name, 0)
            errno = EPERM
            return -1
        }
        return 0
    }

    /// renameat2(2), with RENAME_WHITEOUT also where the file system has none.
    ///
    /// - Returns: 0, or -1 with errno set.
    func renameEntry(
        _ from: Int32, _ old: UnsafePointer<CChar>, _ to: Int32, _ new: UnsafePointer<CChar>, _ flags: UInt32
    ) -> Int32 {
        let whiteout: UInt32 = 4  // RENAME_WHITEOUT
        if martlet_renameat2(from, old, to, new, flags) == 0 { return 0 }
        // With RENAME_EXCHANGE it is an error.
        guard errno == EINVAL, flags & whiteout != 0, flags & 2 == 0,
            martlet_renameat2(from, old, to, new, flags & ~whiteout) == 0
        else { return -1 }
        if makeWhiteout(from, old) == 0 { return 0 }
        _ = martlet_renameat2(to, new, from, old, 1)  // RENAME_NOREPLACE
        errno = EINVAL
        return -1
    }

    /// To be called when a file gets a name in a directory: it may be marked.
    func noteWhiteout(_ status: FileStatus, in directory: Int32) {
        if status.mayBeWhiteout { _ = markDirectory(directory) }
    }

    private func markDirectory(_ directory: Int32) -> Bool {
        let file = martlet_openat(proc.raw, procPath(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if file < 0 { return false }
        defer { close(file) }
        return martlet_fsetxattr(file, Self.directoryMark, "", 0, 0) == 0
    }

    /// - Parameter directory: open for reading.
    func hasWhiteouts(_ directory: Int32) -> Bool {
        martlet_fgetxattr(directory, Self.directoryMark, nil, 0) >= 0
    }

    /// Whether a file stands for a whiteout.
    func isMarked(_ slot: Int) -> Bool {
        guard let file = try? openForIO(slot, O_RDONLY) else { return false }
        defer { close(file) }
        return martlet_fgetxattr(file, Self.mark, nil, 0) >= 0
    }

    func isMarked(_ directory: Int32, _ name: UnsafePointer<CChar>) -> Bool {
        guard let status = try? FileStatus(directory, name), status.mayBeWhiteout,
            let path = try? openEntry(directory, name)
        else { return false }
        defer { close(path) }
        let file = martlet_openat(proc.raw, procPath(path), O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        if file < 0 { return false }
        defer { close(file) }
        return martlet_fgetxattr(file, Self.mark, nil, 0) >= 0
    }
}

extension FileStatus {
    /// An empty file without permissions: hardly another one is made so.
    var mayBeWhiteout: Bool { isRegular && raw.stx_size == 0 && mode & 0o7777 == 0 }
}
