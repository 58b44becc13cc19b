import Glibc

/// One thing that is fuzzed. It is made once; every execution starts from the same state.
public protocol FuzzTarget: AnyObject {
    /// Runs one execution. What must not be is a trap: a crash, or a `require` that does not hold.
    func run(_ input: inout Input) throws
}

/// Ends the process, which libFuzzer reports with the input, unless `condition` holds.
public func require(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { fatalError(message()) }
}

/// The program's target, chosen by the environment variable `MARTLET_FUZZ`.
public final class ChosenTarget: @unchecked Sendable {
    private let target: any FuzzTarget

    public init(_ targets: [String: () throws -> any FuzzTarget]) {
        signal(SIGPIPE, SIG_IGN)
        let name = getenv("MARTLET_FUZZ").map { String(cString: $0) } ?? ""
        guard let make = targets[name] else {
            fatalError("MARTLET_FUZZ=\(name): one of \(targets.keys.sorted().joined(separator: " "))")
        }
        do { target = try make() } catch { fatalError("\(name): \(error)") }
    }

    /// Runs one execution of libFuzzer.
    ///
    /// - Returns: 0, as libFuzzer wants it. An error that a target throws is an input refused.
    public func run(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
        var input = Input(UnsafeRawBufferPointer(start: start, count: count))
        try? target.run(&input)
        return 0
    }
}
