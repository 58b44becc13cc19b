import CAgent
import Glibc
import LinuxSystem

/// Copies a tree of files with owners, modes and times; no symbolic link is followed.
enum TreeCopy {
    /// From the directory `source` into the directory `target`, which gets its owner and mode too.
    static func copy(_ source: Int32, _ target: Int32, _ path: String) throws(SystemError) {
        for name in try directoryNames(source, path) { try copy(name, source, target, "\(path)/\(name)") }
        var information = stat()
        try check("fstat", path, fstat(source, &information))
        try check("chown", path, fchown(target, information.st_uid, information.st_gid))
        try check("chmod", path, fchmod(target, information.st_mode & 0o7777))
    }

    private static func copy(_ name: String, _ source: Int32, _ target: Int32, _ path: String) throws(SystemError) {
        var information = stat()
        try check("stat", path, fstatat(source, name, &information, AT_SYMLINK_NOFOLLOW))
        let mode = information.st_mode & 0o7777
        switch information.st_mode & S_IFMT {
        case S_IFDIR:
            try check("mkdir", path, mkdirat(target, name, 0o700))
            let (from, to) = (
                try open(name, source, O_RDONLY | O_DIRECTORY), try open(name, target, O_RDONLY | O_DIRECTORY)
            )
            try copy(from.raw, to.raw, path)
        case S_IFREG:
            let from = try open(name, source, O_RDONLY)
            let to = try OwnedDescriptor.open(name, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600, at: target)
            var left = information.st_size
            while left > 0 {
                let count = try check("copy", path, sendfile(to.raw, from.raw, nil, left))
                if count == 0 { break }
                left -= count
            }
        case S_IFLNK:
            var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
            try check("readlink", path, readlinkat(source, name, &text, Int(PATH_MAX)))
            try check("symlink", path, symlinkat(text, target, name))
        // A copied socket has no listener.
        case S_IFSOCK: return
        default: try check("mknod", path, mknodat(target, name, information.st_mode, information.st_rdev))
        }
        try check(
            "chown", path, fchownat(target, name, information.st_uid, information.st_gid, AT_SYMLINK_NOFOLLOW))
        if information.st_mode & S_IFMT != S_IFLNK { try check("chmod", path, fchmodat(target, name, mode, 0)) }
        let times = [information.st_atim, information.st_mtim]
        try check("utimens", path, utimensat(target, name, times, AT_SYMLINK_NOFOLLOW))
    }

    private static func open(_ name: String, _ directory: Int32, _ flags: Int32) throws(SystemError) -> SharedDescriptor
    {
        SharedDescriptor(try OwnedDescriptor.open(name, flags | O_NOFOLLOW, at: directory))
    }
}
