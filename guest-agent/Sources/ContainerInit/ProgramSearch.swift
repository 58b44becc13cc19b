import ContainerPlan
import Glibc
import GuestSystem

/// Finds the program of a process as a shell does, before it is executed: so that a wrong name fails the creation.
struct ProgramSearch {
    let plan: ProcessPlan

    /// The search path of a process without a PATH.
    static let standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// - Throws: what runc says, which looks for programs by Go's exec.LookPath.
    func path() throws(AgentFailure) -> String {
        let name = plan.arguments.first ?? ""
        if name.contains("/") {
            switch Self.problem(name) {
            case nil: return name
            case .missing(let error)?: throw .program("exec: \"\(name)\": stat \(name)", errno: error)
            case .notExecutable(let error)?: throw .program("exec: \"\(name)\"", errno: error)
            }
        }
        for directory in searchPath {
            let candidate = directory.isEmpty ? "./\(name)" : "\(directory)/\(name)"
            if Self.problem(candidate) == nil { return candidate }
        }
        throw .program("exec: \"\(name)\": executable file not found in $PATH")
    }

    private var searchPath: [Substring] {
        let path = plan.environment.last { $0.hasPrefix("PATH=") }.map { $0.dropFirst(5) } ?? Self.standardPath[...]
        return path.split(separator: ":", omittingEmptySubsequences: false)
    }

    /// With the kernel's error.
    private enum Problem {
        case missing(Int32)
        case notExecutable(Int32)
    }

    /// Why executing `path` would fail; nil: it would not.
    private static func problem(_ path: String) -> Problem? {
        var information = stat()
        if stat(path, &information) != 0 { return .missing(Glibc.errno) }
        if information.st_mode & S_IFMT == S_IFDIR { return .notExecutable(EISDIR) }
        if information.st_mode & S_IFMT != S_IFREG { return .notExecutable(EACCES) }
        // As the user that executes it, with the capabilities that it has: access(2) asks for the real user without them.
        if faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 { return nil }
        // A filter that is older than faccessat2(2), and is loaded already, refuses the call itself: the execution will tell.
        if [EPERM, ENOSYS].contains(Glibc.errno), information.st_mode & 0o111 != 0 { return nil }
        return .notExecutable(Glibc.errno)
    }
}
