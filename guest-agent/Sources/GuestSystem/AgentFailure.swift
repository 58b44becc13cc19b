import LinuxSystem

/// Why a request was not done: a kind that becomes the RPC's code, and the chain of what failed, outermost first.
public struct AgentFailure: Error, Sendable, CustomStringConvertible {
    public enum Kind: String, Codable, Sendable {
        case notFound, alreadyExists, failedPrecondition, invalidArgument, unimplemented, deadlineExceeded, `internal`
    }

    public var kind: Kind
    public var message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { message }

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
