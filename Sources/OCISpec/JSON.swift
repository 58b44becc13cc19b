import FoundationEssentials

/// Decodes and encodes JSON, with error messages for the people who wrote it.
public enum JSON {
    /// Decodes a value of `type`.
    ///
    /// - Parameter file: the file's name in errors.
    /// - Throws: `SpecError` with the position of a syntax error, or the path of the wrong property.
    public static func decode<T: Decodable>(
        _ type: T.Type, from bytes: [UInt8], file: String
    ) throws(SpecError) -> T {
        do {
            return try JSONDecoder().decode(type, from: Data(bytes))
        } catch let error as DecodingError {
            let numbers: [JSONSyntax.Number]
            do throws(JSONSyntax.Failure) {
                numbers = try JSONSyntax.check(bytes)
            } catch {
                throw .syntax(file: file, line: error.line, column: error.column, reason: error.reason)
            }
            throw .property(file: file, unfitNumber(type, bytes, numbers, error) ?? problem(of: error))
        } catch {
            throw .property(file: file, .init("", "\(error)"))
        }
    }

    /// Encodes a value, either without line breaks or indented.
    public static func encode<T: Encodable>(_ value: T, indented: Bool = false) throws(SpecError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if indented { encoder.outputFormatting.insert(.prettyPrinted) }
        do {
            return Array(try encoder.encode(value))
        } catch {
            throw .property(file: "\(T.self)", .init("", "\(error)"))
        }
    }

    /// Finds the number that does not fit its property, such as `-1` for an id, because the decoder does not report its path.
    ///
    /// It is the last number of the shortest prefix that, replaced by zeroes, makes the decoder accept all numbers. A binary search
    /// finds that prefix.
    private static func unfitNumber<T: Decodable>(
        _ type: T.Type, _ bytes: [UInt8], _ numbers: [JSONSyntax.Number], _ error: DecodingError
    ) -> SpecError.Problem? {
        guard isUnfitNumber(error) else { return nil }
        var good = 0
        var bad = numbers.count
        while good < bad {
            let middle = good + (bad - good) / 2
            var changed = bytes
            for number in numbers.prefix(middle + 1) {
                for index in number.range { changed[index] = UInt8(ascii: " ") }
                changed[number.range.lowerBound] = UInt8(ascii: "0")
            }
            do {
                _ = try JSONDecoder().decode(type, from: Data(changed))
                bad = middle
            } catch let error as DecodingError where isUnfitNumber(error) {
                good = middle + 1
            } catch {
                bad = middle
            }
        }
        guard good < numbers.count else { return nil }
        let text = String(decoding: bytes[numbers[good].range], as: UTF8.self)
        return .init(numbers[good].path, "the number \(text) does not fit")
    }

    private static func isUnfitNumber(_ error: DecodingError) -> Bool {
        guard case .dataCorrupted(let context) = error else { return false }
        return context.codingPath.isEmpty
    }

    private static func problem(of error: DecodingError) -> SpecError.Problem {
        switch error {
        case .typeMismatch(let type, let context):
            .init(path(context.codingPath), "expected \(name(of: type))" + found(context.debugDescription))
        case .valueNotFound(let type, let context):
            .init(path(context.codingPath), "expected \(name(of: type)), found null")
        case .keyNotFound(let key, let context): .init(path(context.codingPath + [key]), "missing")
        case .dataCorrupted(let context): .init(path(context.codingPath), context.debugDescription)
        @unknown default: .init("", "\(error)")
        }
    }

    /// `process.args[2]`
    private static func path(_ keys: [any CodingKey]) -> String {
        keys.reduce("") { path, key in
            if let index = key.intValue { return "\(path)[\(index)]" }
            return path.isEmpty ? key.stringValue : "\(path).\(key.stringValue)"
        }
    }

    private static func name(of type: any Any.Type) -> String {
        let name = "\(type)"
        if type == String.self { return "a string" }
        if type == Bool.self { return "true or false" }
        if name.hasPrefix("Array<") { return "a list" }
        if name.hasPrefix("Dictionary<") { return "an object" }
        return type is any FixedWidthInteger.Type ? "a whole number" : "an object"
    }

    /// The kind of value that the decoder has found. Its message ends with `… but found number instead.`
    private static func found(_ text: String) -> String {
        let words = text.split(separator: " ")
        guard let at = words.lastIndex(of: "found"), at + 1 < words.endIndex else { return "" }
        let kind = words[(at + 1)...].prefix { $0 != "instead." && $0 != "instead" }
        return ", found \(kind.joined(separator: " "))"
    }
}
