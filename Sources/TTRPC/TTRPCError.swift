import LinuxSystem
public import SwiftProtobuf

/// The failure of a call: a gRPC code, a message, and details for programs.
public struct TTRPCError: Error, Sendable, Equatable, CustomStringConvertible {
    /// gRPC's status codes.
    public enum Code: Int32, Sendable {
        case cancelled = 1
        case unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied, resourceExhausted
        case failedPrecondition, aborted, outOfRange, unimplemented, `internal`, unavailable, dataLoss, unauthenticated
    }

    public var code: Code
    /// The operation, its subject and the error.
    public var message: String
    public var details: [Google_Protobuf_Any]

    public init(_ code: Code, _ message: String, details: [Google_Protobuf_Any] = []) {
        self.code = code
        self.message = message
        self.details = details
    }

    public var description: String { "\(message) (\(code))" }
}

extension TTRPCError {
    /// The error that a server sends when a method throws `error`: a `TTRPCError` as it is, cancellation as
    /// `cancelled`, a `SystemError` by its errno (ENOENT: `notFound`, EEXIST: `alreadyExists`, EACCES and EPERM:
    /// `permissionDenied`), any other as `unknown` with its description.
    public init(answering error: any Error) {
        switch error {
        case let error as TTRPCError: self = error
        case is CancellationError: self.init(.cancelled, "the call was cancelled")
        case let error as SystemError: self.init(Self.code(of: error), error.description)
        default: self.init(.unknown, String(describing: error))
        }
    }

    private static func code(of error: SystemError) -> Code {
        switch error.errno {
        case .noSuchFileOrDirectory: .notFound
        case .fileExists: .alreadyExists
        case .permissionDenied, .notPermitted: .permissionDenied
        default: .unknown
        }
    }

    /// The failure in a response; nil on success. A code that gRPC does not define becomes `unknown`.
    init?(_ status: WireStatus) {
        if status.code == 0 { return nil }
        self.init(Code(rawValue: status.code) ?? .unknown, status.message, details: status.details)
    }

    /// The error that a guest's server has sent, as one line of text. The codes that say something of the connection are this
    /// side's alone to use, and details go no further: `unknown` takes the place of the former.
    init(ofGuest error: TTRPCError) {
        let isOfConnection = [.unavailable, .cancelled, .deadlineExceeded].contains(error.code)
        self.init(isOfConnection ? .unknown : error.code, printable(error.message, limit: 4096))
    }

    var wire: WireStatus {
        var status = WireStatus()
        status.code = code.rawValue
        status.message = message
        status.details = details
        return status
    }
}
