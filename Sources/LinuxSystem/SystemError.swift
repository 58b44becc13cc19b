import Glibc
public import SystemPackage

/// A failed system call: the operation, its subject, and the error of the kernel.
public struct SystemError: Error, CustomStringConvertible, Sendable, Equatable {
    /// The operation: `open`, `mount overlay`.
    public var operation: String
    /// The subject: a path, an address; empty when the operation needs none.
    public var subject: String
    public var errno: Errno
    /// The kernel's text beside the number, as in netlink(7); empty when there is none.
    public var detail: String

    public init(_ operation: String, _ subject: String = "", errno: Errno, detail: String = "") {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.detail = detail
    }

    /// The error of the last call, from the thread's `errno`.
    public static func last(_ operation: String, _ subject: String = "") -> SystemError {
        SystemError(operation, subject, errno: Errno(rawValue: Glibc.errno))
    }

    public var description: String {
        (subject.isEmpty ? operation : "\(operation) \(subject)") + ": \(errno)"
            + (detail.isEmpty ? "" : " (\(detail))")
    }
}

/// Checks the result of a system call that returns -1 on failure.
///
/// - Returns: the result.
/// - Throws: `SystemError` with the thread's `errno` when the result is -1.
@discardableResult
public func check<R: SignedInteger>(
    _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String = "", _ result: R
) throws(SystemError) -> R {
    if result == -1 { throw SystemError.last(operation(), subject()) }
    return result
}

/// Checks the result of `call` as `check` does, and repeats the call while it is interrupted (EINTR).
@discardableResult
public func retrying<R: SignedInteger>(
    _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String = "", _ call: () -> R
) throws(SystemError) -> R {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = SystemError.last(operation(), subject())
        if error.errno != .interrupted { throw error }
    }
}

extension Errno {
    /// ENODEV.
    static let noSuchDevice = Errno(rawValue: Glibc.ENODEV)
}
