import Glibc
public import SystemPackage

/// A system call that failed: what was being done, on what, and what the system answered.
public struct SystemError: Error, CustomStringConvertible, Sendable, Equatable {
    /// What was being done: `open`, `mount overlay`.
    public var operation: String
    /// On what: a path, an address; empty when the operation says it all.
    public var subject: String
    public var errno: Errno
    /// What the kernel said beside the number, as netlink(7) does; empty where it said nothing.
    public var detail: String

    public init(_ operation: String, _ subject: String = "", errno: Errno, detail: String = "") {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.detail = detail
    }

    /// The failure of the call just made, from the thread's `errno`.
    public static func last(_ operation: String, _ subject: String = "") -> SystemError {
        SystemError(operation, subject, errno: Errno(rawValue: Glibc.errno))
    }

    public var description: String {
        (subject.isEmpty ? operation : "\(operation) \(subject)") + ": \(errno)"
            + (detail.isEmpty ? "" : " (\(detail))")
    }
}

/// The result of a system call that answers -1 on failure; throws with the thread's `errno` then.
@discardableResult
public func check<R: SignedInteger>(
    _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String = "", _ result: R
) throws(SystemError) -> R {
    if result == -1 { throw SystemError.last(operation(), subject()) }
    return result
}

/// As `check`, calling again for as long as the call is interrupted (EINTR).
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
