/// Makes text of a guest, or of any other program, fit for one line of a log, an error or a terminal. All such text passes this
/// function before it leaves a process of the host.
///
/// What a terminal acts on, and what ends or reorders a line, is shown escaped: control characters (C0 but the tab, DEL, C1), line
/// and paragraph separators, and the marks, embeddings, overrides and isolates of bidirectional text. The result has none of them, so
/// a second call changes nothing.
///
/// Source: Unicode Standard Annex 9, section 2; ECMA-48, section 8.3.
///
/// - Parameters:
///   - text: any text.
///   - limit: most bytes of the result; longer text is cut off and ends with `…`.
/// - Returns: the text as one line.
public func printable(_ text: String, limit: Int = 500) -> String {
    let isPlain = text.utf8.count <= limit && text.utf8.allSatisfy { (0x20..<0x7f).contains($0) || $0 == 0x09 }
    if isPlain { return text }
    var result = ""
    var count = 0
    for scalar in text.unicodeScalars {
        let shown = isActive(scalar) ? scalar.escaped(asASCII: true) : String(scalar)
        count += shown.utf8.count
        guard count <= limit else { return result + "…" }
        result += shown
    }
    return result
}

private func isActive(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x09: false
    case 0..<0x20, 0x7f..<0xa0: true
    // Line and paragraph separator; marks, embeddings, overrides and isolates of direction.
    case 0x2028, 0x2029, 0x061c, 0x200e, 0x200f, 0x202a...0x202e, 0x2066...0x2069: true
    default: false
    }
}
