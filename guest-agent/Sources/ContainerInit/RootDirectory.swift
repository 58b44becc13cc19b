import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// A container's root file system, of which no path leads out: the image behind it may hold any symbolic link.
struct RootDirectory {
    /// An O_PATH descriptor of the directory.
    let descriptor: SharedDescriptor

    /// The directory at `path`, followed as it is: a path of the agent's or `/`.
    init(_ path: String) throws(SystemError) {
        descriptor = SharedDescriptor(try OwnedDescriptor.open(path, O_PATH | O_DIRECTORY))
    }

    /// Opens `path` as a process whose root this directory is would.
    func open(_ path: String, _ flags: Int32, mode: UInt64 = 0) throws(SystemError) -> SharedDescriptor {
        let relative = Self.components(path).joined(separator: "/")
        let raw = try retrying("open", path) {
            martlet_openat2(
                descriptor.raw, relative.isEmpty ? "." : relative, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), mode,
                UInt64(RESOLVE_IN_ROOT) | UInt64(RESOLVE_NO_MAGICLINKS))
        }
        return SharedDescriptor(OwnedDescriptor(owning: raw))
    }

    /// The directory at `path`, made with those above it where there is none.
    func makeDirectories(_ path: String) throws(SystemError) -> SharedDescriptor {
        var parent = descriptor
        var prefix = ""
        for component in Self.components(path) {
            prefix += "/" + component
            do {
                parent = try open(prefix, O_PATH | O_DIRECTORY)
            } catch  where error.errno == .noSuchFileOrDirectory && component != ".." {
                // EEXIST with ENOENT before: a symbolic link that leads nowhere.
                try check("mkdir", prefix, mkdirat(parent.raw, component, 0o755))
                parent = try open(prefix, O_PATH | O_DIRECTORY)
            }
        }
        return parent
    }

    /// The parent directory of `path`, made where there is none, and the last component.
    func makeParent(of path: String) throws(SystemError) -> (directory: SharedDescriptor, name: String) {
        let components = Self.components(path)
        guard let name = components.last, name != ".." else {
            throw SystemError("create", path, errno: .invalidArgument)
        }
        return (try makeDirectories(components.dropLast().joined(separator: "/")), name)
    }

    /// What is at `path`, to mount on: an empty directory or file is made where there is nothing.
    func makeMountPoint(_ path: String, isDirectory: Bool) throws(SystemError) -> SharedDescriptor {
        if isDirectory { return try makeDirectories(path) }
        do {
            return try open(path, O_PATH)
        } catch  where error.errno == .noSuchFileOrDirectory {
            let (parent, name) = try makeParent(of: path)
            let flags = UInt64(UInt32(bitPattern: O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC))
            let raw = try check(
                "create", path, martlet_openat2(parent.raw, name, flags, 0o644, UInt64(RESOLVE_BENEATH)))
            close(raw)
            return try open(path, O_PATH)
        }
    }

    static func components(_ path: String) -> [String] {
        path.split(separator: "/").filter { $0 != "." }.map(String.init)
    }
}

extension SharedDescriptor {
    /// A path that names the open file itself, for calls that take paths only; needs the agent's /proc.
    var path: String { "/proc/self/fd/\(raw)" }

    /// fstat(2).
    public func information() throws(SystemError) -> stat {
        var information = stat()
        try check("fstat", path, fstat(raw, &information))
        return information
    }
}
