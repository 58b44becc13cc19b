import LinuxSystem

/// Why an archive is not made or not unpacked, beside the errors of system calls (`SystemError`).
public enum ArchiveError: Error, CustomStringConvertible, Sendable, Equatable {
    /// Nothing is at this path.
    case notFound(String)
    /// What was asked for does not fit what is there: what, and why.
    case invalid(String)
    /// The bytes are no archive, or one that breaks the format: what is wrong with it.
    case malformed(String)
    /// Not built: the feature's name.
    case unsupported(String)

    public var description: String {
        switch self {
        case .notFound(let path): "\(path): no such file or directory"
        case .invalid(let what): what
        case .malformed(let what): "the archive: \(what)"
        case .unsupported(let what): "the archive: \(what) is not supported"
        }
    }
}

/// A name of a file as text that may be shown: whoever made the file or the archive chose it.
func shown(_ name: some Collection<UInt8>) -> String {
    printable(String(decoding: name, as: UTF8.self), limit: 1024)
}
