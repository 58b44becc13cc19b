import CLinux
import Glibc

/// Writes `text` to an existing file in one call, as files of /proc and of cgroups require.
public func writeText(_ text: String, to path: String) throws(SystemError) {
    let file = try OwnedDescriptor.open(path, O_WRONLY)
    let bytes = Array(text.utf8)
    try retrying("write \(text) to", path) { bytes.withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) } }
}

/// Gives a file new contents in one step: who reads it finds the old or the new.
///
/// - Parameters:
///   - temporary: a path in the same directory, written and renamed; removed when that fails.
///   - mode: permission bits.
/// - Throws: `SystemError`; ENOSPC when the disk is full.
public func replaceFile(
    _ path: String, by temporary: String, with bytes: [UInt8], mode: UInt32 = 0o600
) throws(SystemError) {
    let file = try OwnedDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
    do throws(SystemError) {
        let written = try retrying("write", temporary) { Glibc.write(file.raw, bytes, bytes.count) }
        guard written == bytes.count else { throw SystemError("write", temporary, errno: .noSpace) }
        try check("rename", path, rename(temporary, path))
    } catch {
        unlink(temporary)
        throw error
    }
}

/// Creates a directory and its missing parents.
public func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
    if mkdir(path, mode) == 0 || Glibc.errno == EEXIST { return }
    guard Glibc.errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
        throw SystemError.last("mkdir", path)
    }
    try makeDirectories(String(path[..<slash]), mode: mode)
    if mkdir(path, mode) != 0, Glibc.errno != EEXIST { throw SystemError.last("mkdir", path) }
}

/// The names in a directory, in no particular order, without `.` and `..`.
public func directoryNames(_ path: String) throws(SystemError) -> [String] {
    let directory = try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY)
    return try directoryNames(directory.raw, path)
}

/// The names in an open directory, as `directoryNames(_:)` returns them.
public func directoryNames(_ directory: Int32, _ path: String) throws(SystemError) -> [String] {
    let own = try OwnedDescriptor.open(".", O_RDONLY | O_DIRECTORY, at: directory)
    guard let stream = fdopendir(own.raw) else { throw SystemError.last("opendir", path) }
    _ = own.release()
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// The target of the symbolic link `name` in an open directory; nil when there is no such link.
public func linkTarget(_ name: String, at directory: Int32) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = bytes.withUnsafeMutableBytes { buffer in
        buffer.baseAddress.map { readlinkat(directory, name, $0.assumingMemoryBound(to: CChar.self), buffer.count) }
    }
    guard let count, count >= 0 else { return nil }
    return Array(bytes[..<count])
}

/// The target of a symbolic link; nil: there is none at the path.
public func symbolicLink(_ path: String) -> String? {
    linkTarget(path, at: AT_FDCWD).map { String(decoding: $0, as: UTF8.self) }
}

/// Clones what is mounted at a path into a detached mount (open_tree(2)).
///
/// - Parameter isRecursive: with what is mounted below.
/// - Returns: a descriptor of the clone's root; the clone goes with it unless it is attached.
public func cloneTree(_ path: String, isRecursive: Bool) throws(SystemError) -> SharedDescriptor {
    let flags = UInt32(OPEN_TREE_CLONE) | UInt32(bitPattern: O_CLOEXEC) | (isRecursive ? UInt32(AT_RECURSIVE) : 0)
    let tree = try check("open_tree", path, martlet_open_tree(AT_FDCWD, path, flags))
    return SharedDescriptor(OwnedDescriptor(owning: tree))
}
