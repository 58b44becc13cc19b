/// Checks the syntax of JSON (RFC 8259), to report line and column of an error. The decoder does not report them.
struct JSONSyntax {
    /// The deepest nesting that is allowed. The decoder's own limit is 512.
    static let maximumDepth = 500

    struct Failure: Error, Equatable {
        var line: Int
        var column: Int
        var reason: String
    }

    /// A number in the text and the path of its property.
    struct Number {
        var path: String
        var range: Range<Int>
    }

    private let bytes: ArraySlice<UInt8>
    private var position: Int
    private let start: Int
    private var path: [String] = []
    private var numbers: [Number] = []

    /// Checks that `bytes` are one JSON value.
    ///
    /// - Returns: the numbers in it.
    /// - Throws: `Failure` at the first error.
    @discardableResult
    static func check(_ bytes: [UInt8]) throws(Failure) -> [Number] {
        if let bad = firstInvalidUTF8(bytes) {
            var syntax = JSONSyntax(bytes)
            syntax.position = bad
            throw syntax.failure("not UTF-8 text")
        }
        var syntax = JSONSyntax(bytes)
        syntax.skipSpace()
        try syntax.value(depth: 0)
        syntax.skipSpace()
        if let extra = syntax.peek { throw syntax.failure("unexpected \(describe(extra)) after the end of the object") }
        return syntax.numbers
    }

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes[...]
        start = bytes.startIndex
        position = start
    }

    private var peek: UInt8? { position < bytes.endIndex ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = peek, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }

    private mutating func value(depth: Int) throws(Failure) {
        if depth > Self.maximumDepth { throw failure("nested deeper than \(Self.maximumDepth) levels") }
        guard let first = peek else { throw unexpected("a value") }
        switch first {
        case UInt8(ascii: "{"): try object(depth: depth)
        case UInt8(ascii: "["): try list(depth: depth)
        case UInt8(ascii: "\""): try string()
        case UInt8(ascii: "t"): try word("true")
        case UInt8(ascii: "f"): try word("false")
        case UInt8(ascii: "n"): try word("null")
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): try number()
        default: throw unexpected("a value")
        }
    }

    private mutating func object(depth: Int) throws(Failure) {
        position += 1
        skipSpace()
        if accept("}") { return }
        while true {
            guard peek == UInt8(ascii: "\"") else { throw unexpected("a name in quotes") }
            let name = position + 1
            try string()
            let key = String(decoding: bytes[name..<(position - 1)], as: UTF8.self)
            skipSpace()
            guard accept(":") else { throw unexpected("':'") }
            skipSpace()
            path.append(path.isEmpty ? key : "." + key)
            try value(depth: depth + 1)
            path.removeLast()
            skipSpace()
            if accept("}") { return }
            guard accept(",") else { throw unexpected("',' or '}'") }
            skipSpace()
        }
    }

    private mutating func list(depth: Int) throws(Failure) {
        position += 1
        skipSpace()
        if accept("]") { return }
        var index = 0
        while true {
            path.append("[\(index)]")
            try value(depth: depth + 1)
            path.removeLast()
            index += 1
            skipSpace()
            if accept("]") { return }
            guard accept(",") else { throw unexpected("',' or ']'") }
            skipSpace()
        }
    }

    private mutating func string() throws(Failure) {
        position += 1
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return
            case UInt8(ascii: "\\"): try escape()
            case 0..<0x20: throw failure("unexpected \(Self.describe(byte)) in a string")
            default: position += 1
            }
        }
        throw failure("unexpected end of file in a string")
    }

    private mutating func escape() throws(Failure) {
        position += 1
        switch peek {
        case UInt8(ascii: "u"):
            position += 1
            for _ in 0..<4 {
                guard let digit = peek, Character(UnicodeScalar(digit)).isHexDigit else {
                    throw unexpected("four hexadecimal digits")
                }
                position += 1
            }
        case .some(let byte) where "\"\\/bfnrt".utf8.contains(byte): position += 1
        default: throw unexpected("an escape")
        }
    }

    private mutating func word(_ text: StaticString) throws(Failure) {
        for expected in text.description.utf8 {
            guard peek == expected else { throw unexpected("'\(text)'") }
            position += 1
        }
    }

    private mutating func number() throws(Failure) {
        let first = position
        _ = accept("-")
        if !accept("0") { try digits() }
        if accept(".") { try digits() }
        if accept("e") || accept("E") {
            if !accept("+") { _ = accept("-") }
            try digits()
        }
        numbers.append(Number(path: path.joined(), range: first..<position))
    }

    private mutating func digits() throws(Failure) {
        let first = position
        while let byte = peek, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
        if position == first { throw unexpected("a digit") }
    }

    private mutating func accept(_ character: Unicode.Scalar) -> Bool {
        guard let byte = peek, UInt32(byte) == character.value else { return false }
        position += 1
        return true
    }

    private func unexpected(_ expected: String) -> Failure {
        guard let byte = peek else { return failure("unexpected end of file, expected \(expected)") }
        return failure("unexpected \(Self.describe(byte)), expected \(expected)")
    }

    private func failure(_ reason: String) -> Failure {
        let before = bytes[start..<min(position, bytes.endIndex)]
        let line = before.reduce(1) { $1 == 0x0a ? $0 + 1 : $0 }
        let lineStart = before.lastIndex(of: 0x0a).map { $0 + 1 } ?? start
        return Failure(line: line, column: position - lineStart + 1, reason: reason)
    }

    private static func describe(_ byte: UInt8) -> String {
        switch byte {
        case 0x0a: "end of line"
        case 0x21..<0x7f: "character '\(Character(UnicodeScalar(byte)))'"
        case 0x20: "space"
        default: "byte 0x" + String(byte, radix: 16)
        }
    }

    private static func firstInvalidUTF8(_ bytes: [UInt8]) -> Int? {
        if String(validating: bytes, as: UTF8.self) != nil { return nil }
        var index = 0
        while index < bytes.count {
            let lead = bytes[index]
            let length = lead < 0x80 ? 1 : lead & 0xe0 == 0xc0 ? 2 : lead & 0xf0 == 0xe0 ? 3 : 4
            let end = min(index + length, bytes.count)
            if lead >= 0x80 && String(validating: bytes[index..<end], as: UTF8.self) == nil { return index }
            index = end
        }
        return nil
    }
}
