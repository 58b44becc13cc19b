import AgentAPI
import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// What a root file system of several layers is made of, beside disks.
enum Layers {
    /// Makes a directory where it is missing. What leads to it may be an image's: no symbolic link is followed.
    static func make(_ directory: AgentStorageDirectory) throws(AgentFailure) {
        try checkPath(directory.path)
        try during("make \(directory.path)") {
            let (parent, name) = split(directory.path)
            let above = try open(parent)
            if mkdirat(above.raw, name, 0o700) != 0 {
                guard Glibc.errno == EEXIST else { throw SystemError.last("mkdir", name) }
                // It stays as it is; what is no directory is not one.
                _ = try open(directory.path)
                return
            }
            let made = try open(directory.path)
            let path = "/proc/self/fd/\(made.raw)"
            try check("chown", name, chown(path, directory.uid, directory.gid))
            try check("chmod", name, chmod(path, directory.mode & 0o7777))
        }
    }

    /// Stacks directories.
    static func mountOverlay(_ storage: AgentStorage) throws(AgentFailure) {
        let paths = storage.lower + [storage.upper, storage.work].filter { !$0.isEmpty }
        for path in paths {
            try checkPath(path)
            // Nothing changes there before the container runs.
            try during("open \(path)") { _ = try open(path) }
        }
        // mount(2) takes a page of options: they name the layers from the directory that these have in common.
        let base = common(paths)
        func short(_ path: String) -> String { String(path.dropFirst(base.utf8.count + 1)) }
        var options = ["lowerdir=" + storage.lower.map(short).joined(separator: ":")]
        if !storage.upper.isEmpty {
            options += ["upperdir=\(short(storage.upper))", "workdir=\(short(storage.work))"]
        }
        let data = (options + storage.options).joined(separator: ",")
        guard data.utf8.count < 4096 else {
            throw AgentFailure(.invalidArgument, "\(storage.lower.count) layers: \(data.utf8.count) bytes of options")
        }
        let (target, flags) = (storage.mountPoint, storage.readonly ? MountFlag.readOnly : 0)
        try during("mount overlay") {
            try makeDirectories(target)
            try inDirectory(base) { () throws(SystemError) in
                try GuestMounts.mountAt("overlay", target, "overlay", flags, data)
            }
        }
    }

    static func mountMemory(_ storage: AgentStorage) throws(AgentFailure) {
        try during("mount tmpfs") {
            try makeDirectories(storage.mountPoint)
            try GuestMounts.mountAt("tmpfs", storage.mountPoint, "tmpfs", 0, "mode=0755")
        }
    }

    static func mountBind(_ storage: AgentStorage) throws(AgentFailure) {
        try checkPath(storage.path)
        try during("bind \(storage.path)") {
            let directory = try open(storage.path)
            try makeDirectories(storage.mountPoint)
            try GuestMounts.mountAt("/proc/self/fd/\(directory.raw)", storage.mountPoint, nil, MountFlag.bind)
        }
    }

    // MARK: Paths

    private static func checkPath(_ path: String) throws(AgentFailure) {
        let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).dropFirst()
        let isWhole = parts.allSatisfy { part in !["", ".", ".."].contains { part.elementsEqual($0.utf8) } }
        guard path.hasPrefix("\(GuestPath.base)/"), isWhole else {
            throw AgentFailure(.invalidArgument, "\(path) is not below \(GuestPath.base)")
        }
    }

    /// A directory, to which no symbolic link leads.
    private static func open(_ path: String) throws(SystemError) -> SharedDescriptor {
        let flags = UInt64(UInt32(bitPattern: O_PATH | O_CLOEXEC | O_DIRECTORY))
        let file = martlet_openat2(AT_FDCWD, path, flags, 0, UInt64(RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS))
        return SharedDescriptor(OwnedDescriptor(owning: try check("open", path, file)))
    }

    private static func split(_ path: String) -> (parent: String, name: String) {
        let slash = path.lastIndex(of: "/") ?? path.startIndex
        return (String(path[..<slash]), String(path[path.index(after: slash)...]))
    }

    /// The directory that all of them lie in.
    private static func common(_ paths: [String]) -> String {
        var common = paths.first.map { split($0).parent } ?? ""
        while !common.isEmpty, !paths.allSatisfy({ $0.hasPrefix(common + "/") }) { common = split(common).parent }
        return common
    }
}

/// Runs `body` on a thread of its own, whose working directory is `path`.
private func inDirectory(
    _ path: String, _ body: @Sendable @escaping () throws(SystemError) -> Void
) throws(SystemError) {
    let done = try Promise<Result<Void, SystemError>>()
    try startThread("directory") {
        done.settle(
            Result { () throws(SystemError) in
                try check("unshare", "working directory", martlet_unshare(CLONE_FS))
                try check("chdir", path, chdir(path))
                try body()
            })
    }
    try done.wait()?.get()
}
