import LinuxSystem

/// The id of a container or pod. It becomes the name of a directory, so only harmless characters are allowed. The rule is runc's.
public struct ContainerID: Sendable, Hashable, CustomStringConvertible {
    /// The longest name of a directory, bytes.
    public static let maximumLength = 255

    public let value: String

    /// - Throws: `SpecError.containerID` with the reason why `text` is not an id.
    public init(_ text: String) throws(SpecError) {
        if let reason = Self.objection(to: text) { throw .containerID(text, reason: reason) }
        value = text
    }

    public var description: String { value }

    private static func objection(to text: String) -> String? {
        if text.isEmpty { return "must not be empty" }
        if text == "." || text == ".." { return "must not be \".\" or \"..\"" }
        if text.utf8.count > maximumLength { return "must not be longer than \(maximumLength) bytes" }
        for scalar in text.unicodeScalars {
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "_", "+", "-", ".": continue
            default: return "must not have '\(printable(String(scalar)))': only letters, digits, _ + - . are allowed"
            }
        }
        return nil
    }
}
