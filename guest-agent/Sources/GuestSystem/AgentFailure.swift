import Glibc
import LinuxSystem

/// Why a request was not done: a kind that becomes the RPC's code, and the chain of what failed, outermost first.
public struct AgentFailure: Error, Sendable, CustomStringConvertible {
    public enum Kind: String, Codable, Sendable {
        case notFound, alreadyExists, failedPrecondition, invalidArgument, unimplemented, deadlineExceeded, `internal`
        /// A process's program can't be executed, or its working directory not be entered.
        case program
    }

    public var kind: Kind
    public var message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { message }

    /// That a process can't be started, in runc's words (`reason`: the whole of it): engines choose their exit code by them.
    public static func program(_ reason: String) -> AgentFailure {
        AgentFailure(.program, "unable to start container process: \(reason)")
    }

    /// As `program`, with the kernel's error in Go's spelling: `no such file or directory`.
    public static func program(_ reason: String, errno: Int32) -> AgentFailure {
        let text = String(cString: strerror(errno))
        return program("\(reason): \(text.prefix(1).lowercased())\(text.dropFirst())")
    }

    /// The same failure as part of doing `what`: `create container x: mount proc on /proc: …`.
    public func during(_ what: String) -> AgentFailure { AgentFailure(kind, "\(what): \(message)") }

    /// Any error as a failure; a system call's is internal.
    public init(_ error: any Error) {
        switch error {
        case let failure as AgentFailure: self = failure
        case let error as SystemError: self.init(.internal, error.description)
        default: self.init(.internal, "\(error)")
        }
    }
}

/// Runs `body`; what it throws becomes a failure of doing `what`.
@discardableResult
public func during<R>(_ what: @autoclosure () -> String, _ body: () throws -> R) throws(AgentFailure) -> R {
    do {
        return try body()
    } catch {
        throw AgentFailure(error).during(what())
    }
}
