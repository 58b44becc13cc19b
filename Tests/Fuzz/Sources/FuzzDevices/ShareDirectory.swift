import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

/// A directory to share, on a small file system of its own that no other process sees, beside a file that is none of the
/// guest's business.
final class ShareDirectory {
    let path: String
    private let parent: Int32
    private let secret: stat

    init() throws {
        var template = Array("/tmp/martlet-fuzz-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        // It goes with this process.
        try check("unshare", path, unshare(CLONE_NEWNS))
        try check("mount", "/", mount("", "/", "", MountFlag.recursive | MountFlag.isPrivate, nil))
        try check("mount", path, mount("tmpfs", path, "tmpfs", 0, "size=4m,nr_inodes=2000,mode=755"))
        mkdir(path + "/share", 0o755)
        let file = try OwnedDescriptor.open(path + "/secret", O_RDWR | O_CREAT, mode: 0o4755)
        _ = "outside".withCString { Glibc.write(file.raw, $0, 7) }
        parent = try check("open", path, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        var status = stat()
        fstatat(parent, "secret", &status, AT_SYMLINK_NOFOLLOW)
        secret = status
        rmdir(path + "/nothing")
    }

    /// Makes the share what it was.
    func restore() throws {
        let share = try check("openat", "share", openat(parent, "share", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        defer { close(share) }
        Self.empty(share, keeping: "directory")
        fchmod(share, 0o755)
        fchown(share, 0, 0)
        let file = openat(share, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        _ = "inside".withCString { Glibc.write(file, $0, 6) }
        close(file)
        mkdirat(share, "directory", 0o755)
        symlinkat("../secret", share, "out")
        symlinkat("/", share, "up")
    }

    /// What lies beside the share is as it was.
    func requireUntouched() {
        var status = stat()
        require(fstatat(parent, "secret", &status, AT_SYMLINK_NOFOLLOW) == 0, "the file beside the share is gone")
        require(
            status.st_mode == secret.st_mode && status.st_size == secret.st_size && status.st_nlink == 1
                && status.st_uid == 0 && status.st_mtim.tv_nsec == secret.st_mtim.tv_nsec
                && status.st_ino == secret.st_ino, "the file beside the share has changed")
    }

    private static func empty(_ directory: Int32, keeping kept: String = "") {
        guard let entries = fdopendir(dup(directory)) else { return }
        defer { closedir(entries) }
        rewinddir(entries)
        while let entry = readdir(entries) {
            withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                guard let name = bytes.baseAddress?.assumingMemoryBound(to: CChar.self), strcmp(name, ".") != 0,
                    strcmp(name, "..") != 0
                else { return }
                if unlinkat(directory, name, 0) == 0 { return }
                let child = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                if child >= 0 {
                    empty(child)
                    close(child)
                }
                // The read-only share is this directory.
                if strcmp(name, kept) != 0 { unlinkat(directory, name, AT_REMOVEDIR) }
            }
        }
    }
}
