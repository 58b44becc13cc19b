import CLinux
import Glibc
import LinuxSystem

// Names of files are bytes: those of an archive or of a container need be no UTF-8.

extension [UInt8] {
    /// Calls `body` with the name as C has it. A name has no zero byte.
    func withCName<R>(_ body: (UnsafePointer<CChar>) throws -> R) rethrows -> R {
        try (self + [0]).withUnsafeBytes { bytes in
            // Never empty: the zero is there.
            try body(bytes.bindMemory(to: CChar.self).baseAddress.unsafelyUnwrapped)
        }
    }
}

/// Opens `name` in a directory, close-on-exec.
///
/// - Parameters:
///   - resolve: RESOLVE_* of openat2(2).
///   - shown: the name for the error.
func openEntry(
    _ name: [UInt8], in directory: Int32, _ flags: Int32, mode: UInt32 = 0, resolve: Int32 = 0,
    as shown: @autoclosure () -> String
) throws(SystemError) -> SharedDescriptor {
    let raw = try retrying("open", shown()) {
        name.withCName {
            martlet_openat2(
                directory, $0, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), UInt64(mode), UInt64(resolve))
        }
    }
    return SharedDescriptor(OwnedDescriptor(owning: raw))
}

/// What `name` in a directory is, a link itself.
func entryStatus(_ name: [UInt8], in directory: Int32, as shown: @autoclosure () -> String) throws(SystemError) -> stat
{
    var status = stat()
    try check("stat", shown(), name.withCName { fstatat(directory, $0, &status, AT_SYMLINK_NOFOLLOW) })
    return status
}

/// The names in a directory, sorted, without `.` and `..`.
///
/// - Parameter directory: opened for reading; its position changes.
func entryNames(of directory: SharedDescriptor, as shown: @autoclosure () -> String) throws(SystemError) -> [[UInt8]] {
    let own = try directory.duplicate()
    guard let stream = fdopendir(own.raw) else { throw SystemError.last("opendir", shown()) }
    _ = own.release()
    defer { closedir(stream) }
    var names: [[UInt8]] = []
    while true {
        errno = 0
        guard let entry = readdir(stream) else {
            if errno != 0 { throw SystemError.last("readdir", shown()) }
            break
        }
        let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in Array(bytes.prefix { $0 != 0 }) }
        if name != [UInt8(ascii: ".")], name != [UInt8(ascii: "."), UInt8(ascii: ".")] { names.append(name) }
    }
    return names.sorted { $0.lexicographicallyPrecedes($1) }
}

/// Where the symbolic link `name` in a directory leads.
func linkText(_ name: [UInt8], in directory: Int32, as shown: @autoclosure () -> String) throws(SystemError) -> [UInt8]
{
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = name.withCName { name in
        bytes.withUnsafeMutableBytes { buffer in
            readlinkat(directory, name, buffer.bindMemory(to: CChar.self).baseAddress.unsafelyUnwrapped, buffer.count)
        }
    }
    return Array(bytes.prefix(try check("readlink", shown(), count)))
}
