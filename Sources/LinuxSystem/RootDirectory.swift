import CLinux
import Glibc

/// A directory as the root of paths: neither a symbolic link nor `..` leads out of it.
public struct RootDirectory: Sendable {
    /// How many symbolic links one path may follow (MAXSYMLINKS, linux/namei.h).
    private static let maximumLinks = 40

    /// The directory itself.
    public let descriptor: SharedDescriptor

    /// - Parameter descriptor: a directory, opened in any way (O_PATH is enough).
    public init(_ descriptor: SharedDescriptor) { self.descriptor = descriptor }

    /// The directory at `path`, which is resolved as usual.
    public init(_ path: String) throws(SystemError) {
        descriptor = SharedDescriptor(try OwnedDescriptor.open(path, O_PATH | O_DIRECTORY))
    }

    /// Opens `path` as a process with this root would (openat2(2), RESOLVE_IN_ROOT).
    ///
    /// - Throws: ELOOP for a magic link of procfs.
    public func open(_ path: String, _ flags: Int32) throws(SystemError) -> SharedDescriptor {
        try open(path, flags, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS)
    }

    /// Opens `path` below this root without following any symbolic link.
    ///
    /// - Throws: ELOOP where there is one.
    public func openWithoutLinks(_ path: String, _ flags: Int32) throws(SystemError) -> SharedDescriptor {
        try open(path, flags, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS)
    }

    /// Opens `path` on the file system of this directory: what is mounted below is not reached.
    ///
    /// - Throws: EXDEV for what is on another mount, and for a way out.
    public func openOnSameMount(_ path: String, _ flags: Int32) throws(SystemError) -> SharedDescriptor {
        try open(path, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS)
    }

    private func open(
        _ path: String, _ flags: Int32, _ scope: Int32, _ links: Int32
    ) throws(SystemError) -> SharedDescriptor {
        let relative = Self.components(path).joined(separator: "/")
        let raw = try retrying("open", path) {
            martlet_openat2(
                descriptor.raw, relative.isEmpty ? "." : relative, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), 0,
                UInt64(scope | links))
        }
        return SharedDescriptor(OwnedDescriptor(owning: raw))
    }

    /// The directory at `path`. It and the directories above it are made where they are missing, with mode 0755.
    ///
    /// A symbolic link whose target is missing is followed: the target is made.
    public func makeDirectories(_ path: String) throws(SystemError) -> SharedDescriptor {
        do {
            return try open(path, O_PATH | O_DIRECTORY)
        } catch  where error.errno == .noSuchFileOrDirectory {
            let (reached, missing) = try resolve(path)
            return try Self.makeDirectories(missing, in: reached, path)
        }
    }

    /// Where `path` leads, its links followed, the last component's too.
    ///
    /// - Returns: the directory that has it, and its name there; what has that name, opened with O_PATH, nil where nothing has. For this
    ///   root itself the name is `.`.
    /// - Throws: ENOENT where the directory is missing too.
    public func locate(
        _ path: String
    ) throws(SystemError) -> (directory: SharedDescriptor, name: String, found: SharedDescriptor?) {
        let (trail, missing) = try trail(path)
        if let name = missing.last {
            guard missing.count == 1 else { throw SystemError("open", path, errno: .noSuchFileOrDirectory) }
            return (trail.last?.descriptor ?? descriptor, name, nil)
        }
        guard let last = trail.last else { return (descriptor, ".", descriptor) }
        return (trail.dropLast().last?.descriptor ?? descriptor, last.name, last.descriptor)
    }

    /// The parent directory of `path`, made where it is missing, and the last component.
    public func makeParent(of path: String) throws(SystemError) -> (directory: SharedDescriptor, name: String) {
        let components = Self.components(path)
        guard let name = components.last, name != ".." else {
            throw SystemError("create", path, errno: .invalidArgument)
        }
        return (try makeDirectories(components.dropLast().joined(separator: "/")), name)
    }

    /// What is at `path`, to mount on. An empty directory or file is made where there is nothing.
    ///
    /// A symbolic link whose target is missing is followed: the target is made.
    public func makeMountPoint(_ path: String, isDirectory: Bool) throws(SystemError) -> SharedDescriptor {
        if isDirectory { return try makeDirectories(path) }
        do {
            return try open(path, O_PATH)
        } catch  where error.errno == .noSuchFileOrDirectory {
            let (reached, missing) = try resolve(path)
            guard let name = missing.last else { return reached }
            let parent = try Self.makeDirectories(missing.dropLast(), in: reached, path)
            // Not opened: something else of that name may have come meanwhile, and a fifo would block.
            if mknodat(parent.raw, name, S_IFREG | 0o644, 0) != 0, Glibc.errno != EEXIST {
                throw SystemError.last("create", path)
            }
            return SharedDescriptor(try OwnedDescriptor.open(name, O_PATH | O_NOFOLLOW, at: parent.raw))
        }
    }

    /// The components of a path, without empty ones and `.`.
    ///
    /// Split by bytes: as a character, a slash with a combining mark after it is no slash, but to the kernel it is.
    public static func components(_ path: String) -> [String] {
        path.utf8.split(separator: UInt8(ascii: "/")).map { String(Substring($0)) }.filter { $0 != "." }
    }

    /// Follows `path` as far as it exists, one component at a time, each below a descriptor that is held: what others rename
    /// meanwhile leads nowhere else.
    ///
    /// - Returns: the last that exists, and the names of what is missing below it.
    private func resolve(_ path: String) throws(SystemError) -> (reached: SharedDescriptor, missing: [String]) {
        let (trail, missing) = try trail(path)
        return (trail.last?.descriptor ?? descriptor, missing)
    }

    /// As `resolve`.
    ///
    /// - Returns: what was passed below the root, down to the last that exists, each with its name.
    private func trail(
        _ path: String
    ) throws(SystemError) -> (reached: [(name: String, descriptor: SharedDescriptor)], missing: [String]) {
        var left = Self.components(path)[...]
        var directories: [(name: String, descriptor: SharedDescriptor)] = []
        var missing: [String] = []
        var links = 0
        while let name = left.popFirst() {
            if name == ".." {
                // As lexically where nothing exists (filepath-securejoin, which runc uses).
                if missing.popLast() == nil { _ = directories.popLast() }
                continue
            }
            guard missing.isEmpty, let next = try Self.child(name, of: directories.last?.descriptor ?? descriptor, path)
            else {
                missing.append(name)
                continue
            }
            guard try next.information().st_mode & S_IFMT == S_IFLNK else {
                directories.append((name, next))
                continue
            }
            links += 1
            guard links <= Self.maximumLinks, let bytes = linkTarget("", at: next.raw),
                let target = String(validating: bytes, as: UTF8.self)
            else { throw SystemError("follow the links of", path, errno: .tooManySymbolicLinkLevels) }
            if target.utf8.first == UInt8(ascii: "/") { directories = [] }
            left = (Self.components(target) + left)[...]
        }
        return (directories, missing)
    }

    /// What has this name in a directory, a link itself; nil where nothing has.
    private static func child(
        _ name: String, of directory: SharedDescriptor, _ path: String
    ) throws(SystemError) -> SharedDescriptor? {
        do throws(SystemError) {
            return SharedDescriptor(try OwnedDescriptor.open(name, O_PATH | O_NOFOLLOW, at: directory.raw))
        } catch {
            if error.errno == .noSuchFileOrDirectory { return nil }
            throw SystemError("open", path, errno: error.errno)
        }
    }

    private static func makeDirectories(
        _ names: some Collection<String>, in parent: SharedDescriptor, _ path: String
    ) throws(SystemError) -> SharedDescriptor {
        var directory = parent
        for name in names {
            // Somebody else may have made it meanwhile.
            if mkdirat(directory.raw, name, 0o755) != 0, Glibc.errno != EEXIST {
                throw SystemError.last("mkdir", path)
            }
            directory = SharedDescriptor(
                try OwnedDescriptor.open(name, O_PATH | O_DIRECTORY | O_NOFOLLOW, at: directory.raw))
        }
        return directory
    }
}
