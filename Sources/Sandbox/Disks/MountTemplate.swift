/// What of the mounts before it a mount can name, as containerd's mount manager has it (docs/mounts.md of containerd).
struct ActiveMount {
    /// A path of the host; empty where it has none.
    var source: String
    /// A path in the guest; of a `loop` mount, which is its file, the file's path on the host.
    var mountPoint: String
}

/// Text with `{{ NAME ARGUMENTS }}` in it, each of which stands for something of the mounts before it.
enum MountTemplate {
    private static let begin = "{{"
    private static let end = "}}"

    /// The text with everything filled in.
    ///
    /// - Throws: `SandboxError.invalid` for what is not known, and for a mount that is not there.
    static func expand(_ text: String, _ active: [ActiveMount]) throws -> String {
        var result = ""
        var rest = text[...]
        while let opening = rest.firstRange(of: begin) {
            result += rest[..<opening.lowerBound]
            rest = rest[opening.upperBound...]
            guard let closing = rest.firstRange(of: end) else {
                throw SandboxError.invalid("\(text): \(begin) without \(end)")
            }
            result += try value(rest[..<closing.lowerBound], active)
            rest = rest[closing.upperBound...]
        }
        return result + rest
    }

    private static func value(_ words: Substring, _ active: [ActiveMount]) throws -> String {
        let parts = words.split { $0 == " " || $0 == "\t" }
        let numbers = parts.dropFirst().compactMap { Int($0) }
        let name = parts.first ?? ""
        guard numbers.count == parts.count - 1, numbers.count == (name == "overlay" ? 2 : 1) else {
            throw SandboxError.invalid("\(begin)\(words)\(end): not known")
        }
        for number in numbers where !active.indices.contains(number) {
            throw SandboxError.invalid("\(begin)\(words)\(end): there are \(active.count) mounts before it, from 0 on")
        }
        switch name {
        case "source": return active[numbers[0]].source
        // None of them has a place of its own in the root.
        case "target": return ""
        case "mount": return active[numbers[0]].mountPoint
        case "overlay":
            let (first, last) = (numbers[0], numbers[1])
            let order = first > last ? Array((last...first).reversed()) : Array(first...last)
            return order.map { active[$0].mountPoint }.joined(separator: ":")
        default: throw SandboxError.invalid("\(begin)\(words)\(end): not known")
        }
    }
}
