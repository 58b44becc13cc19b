import LinuxSystem

/// An error in a bundle, its config.json or a container's id.
public enum SpecError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A file or directory of the bundle can't be used. `reason` is what was found, or the system's error.
    case bundle(path: String, reason: String)
    /// Text that is not JSON. Lines and columns (of bytes) count from 1.
    case syntax(file: String, line: Int, column: Int, reason: String)
    /// A property of the wrong type, out of its type's range, or missing.
    case property(file: String, Problem)
    /// All properties with an invalid value.
    case invalid(file: String, [Problem])
    case containerID(String, reason: String)

    /// The error of one property.
    public struct Problem: Sendable, Equatable, CustomStringConvertible {
        /// The path in the document: `process.args[2]`.
        public var field: String
        public var reason: String

        public init(_ field: String, _ reason: String) {
            self.field = field
            self.reason = reason
        }

        public var description: String { field.isEmpty ? reason : "\(field): \(reason)" }
    }

    /// One line.
    public var description: String {
        switch self {
        case .bundle(let path, let reason): "\(printable(path)): \(reason)"
        case .syntax(let file, let line, let column, let reason):
            "\(printable(file)): line \(line), column \(column): \(reason)"
        case .property(let file, let problem): "\(printable(file)): \(printable(problem.description))"
        case .invalid(let file, let problems):
            "\(printable(file)): \(problems.map { printable($0.description) }.joined(separator: "; "))"
        case .containerID(let id, let reason): "container id \"\(printable(id))\": \(reason)"
        }
    }
}
