import ContainerPlan
import Glibc
import GuestSystem

/// Finds the program of a process as a shell does, before it is executed: so that a wrong name fails the creation.
struct ProgramSearch {
    let plan: ProcessPlan

    /// The search path of a process without a PATH.
    static let standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    func path() throws(AgentFailure) -> String {
        let name = plan.arguments.first ?? ""
        if name.contains("/") {
            let error = Self.executionError(name)
            if error == 0 { return name }
            throw AgentFailure(.invalidArgument, "exec: \"\(name)\": \(String(cString: strerror(error)))")
        }
        var error: Int32 = ENOENT
        for directory in searchPath {
            let candidate = directory.isEmpty ? "./\(name)" : "\(directory)/\(name)"
            switch Self.executionError(candidate) {
            case 0: return candidate
            case EACCES: error = EACCES
            default: continue
            }
        }
        let reason = error == EACCES ? "permission denied" : "executable file not found in $PATH"
        throw AgentFailure(.invalidArgument, "exec: \"\(name)\": \(reason)")
    }

    private var searchPath: [Substring] {
        let path = plan.environment.last { $0.hasPrefix("PATH=") }.map { $0.dropFirst(5) } ?? Self.standardPath[...]
        return path.split(separator: ":", omittingEmptySubsequences: false)
    }

    /// 0, or the error with which executing `path` would fail.
    private static func executionError(_ path: String) -> Int32 {
        var information = stat()
        if stat(path, &information) != 0 { return Glibc.errno }
        if information.st_mode & S_IFMT == S_IFDIR { return EISDIR }
        if information.st_mode & S_IFMT != S_IFREG { return EACCES }
        return access(path, X_OK) == 0 ? 0 : Glibc.errno
    }
}
