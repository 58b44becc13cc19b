import TOMLKit

/// The merged settings of TOML files. Each setting keeps the file that it came from.
struct SettingTree {
    enum Value: Equatable {
        case string(String)
        case integer(Int)
        case double(Double)
        case bool(Bool)
        case list([Value])
        /// A date, a time, or a table in a list, which no key accepts.
        case other(String)

        /// The name in messages.
        var kind: String {
            switch self {
            case .string: "a string"
            case .integer: "a whole number"
            case .double: "a number with a fraction"
            case .bool: "true or false"
            case .list: "a list"
            case .other(let name): "a \(name)"
            }
        }
    }

    struct Setting: Equatable {
        var value: Value
        var file: String
    }

    /// By dotted key.
    private(set) var settings: [String: Setting] = [:]
    /// Tables by dotted name, and a file that has them. Needed to refuse unknown tables that are empty.
    private(set) var tables: [String: String] = [:]

    /// Adds a file's settings, which override those of earlier files.
    mutating func merge(_ text: String, file: String) throws(ConfigurationError) {
        try Self.checkHeaders(text, file)
        let table: TOMLTable
        do {
            table = try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            let place = "line \(error.source.begin.line), column \(error.source.begin.column)"
            throw ConfigurationError(subject: file, place: place, reason: Self.oneLine(error.description))
        } catch {
            throw ConfigurationError(subject: file, reason: "\(error)")
        }
        try add(table, prefix: "", file: file)
    }

    /// Sets a key from text: `true`, `false`, a whole number, or the text itself.
    mutating func set(_ key: String, text: String, file: String) {
        let value: Value =
            switch text {
            case "true": .bool(true)
            case "false": .bool(false)
            default: Int(text).map { .integer($0) } ?? .string(text)
            }
        settings[key] = Setting(value: value, file: file)
    }

    private mutating func add(_ table: TOMLTable, prefix: String, file: String) throws(ConfigurationError) {
        for key in table.keys.sorted() {
            let name = prefix + key
            if let inner = table[key]?.table {
                if settings[name] != nil { throw Self.clash(name, file) }
                tables[name] = file
                try add(inner, prefix: name + ".", file: file)
            } else if let value = table[key] {
                if tables[name] != nil { throw Self.clash(name, file) }
                settings[name] = Setting(value: Self.value(value), file: file)
            }
        }
    }

    /// Refuses a table's header that does not begin with a name: the parser would end the process.
    private static func checkHeaders(_ text: String, _ file: String) throws(ConfigurationError) {
        func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        let lines = text.utf8.drop { [0xef, 0xbb, 0xbf].contains($0) }.split(
            separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (number, line) in lines.enumerated() {
            let header = line.drop(while: isBlank)
            guard header.first == UInt8(ascii: "[") else { continue }
            var name = header.dropFirst().drop(while: isBlank)
            if name.first == UInt8(ascii: "[") { name = name.dropFirst().drop(while: isBlank) }
            let first = name.first.map { Unicode.Scalar($0) } ?? " "
            if ("a"..."z").contains(first) || ("A"..."Z").contains(first)
                || "0123456789-_\"']".unicodeScalars.contains(first)
            {
                continue
            }
            throw ConfigurationError(
                subject: file, place: "line \(number + 1)", reason: "the table has no name that begins in this line")
        }
    }

    private static func clash(_ name: String, _ file: String) -> ConfigurationError {
        ConfigurationError(subject: file, place: name, reason: "a table in one file and a value in another")
    }

    private static func value(_ value: any TOMLValueConvertible) -> Value {
        if let string = value.string { return .string(string) }
        if let integer = value.int { return .integer(integer) }
        if let bool = value.bool { return .bool(bool) }
        if let double = value.double { return .double(double) }
        if let list = value.array { return .list(list.map { Self.value($0) }) }
        return .other(value.type.description)
    }

    private static func oneLine(_ text: String) -> String { text.replacing("\n", with: " ") }
}
