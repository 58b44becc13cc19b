import LinuxSystem
import Testing

@Suite struct PrintableTests {
    @Test(arguments: [
        ("plain text\twith a tab", "plain text\twith a tab"),
        ("grüße 漢字 🦆", "grüße 漢字 🦆"),
        ("a\nb\r\0c", #"a\nb\r\0c"#),
        ("\u{1b}]0;title\u{7}", #"\u{1B}]0;title\u{07}"#),
        ("del\u{7f}", #"del\u{7F}"#),
        ("\u{9b}31m\u{80}\u{9f}", #"\u{009B}31m\u{0080}\u{009F}"#),
        ("x\u{2028}y\u{2029}z", #"x\u{2028}y\u{2029}z"#),
    ])
    func whatATerminalActsOnIsEscaped(text: String, shown: String) {
        #expect(printable(text) == shown)
        #expect(printable(printable(text)) == shown, "a second call changes nothing")
    }

    /// Text that shows other than it is: "rm -rf" behind an override of its direction.
    @Test func marksOfDirectionAreEscaped() {
        let values = Array(0x202a...0x202e) + Array(0x2066...0x2069) + [0x200e, 0x200f, 0x061c]
        for value in values {
            guard let scalar = Unicode.Scalar(UInt32(value)) else { continue }
            let shown = printable("a\(Character(scalar))b")
            #expect(!shown.unicodeScalars.contains(scalar))
            #expect(shown.hasPrefix("a\\u{") && shown.hasSuffix("}b"))
        }
    }

    @Test func everyControlCharacterIsEscaped() {
        for value in UInt32(0)..<0xa0 where value != 9 {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let isText = (0x20..<0x7f).contains(value)
            #expect(printable(String(scalar)).unicodeScalars.contains(scalar) == isText, "\(value)")
        }
    }

    @Test func longTextIsCutOff() {
        #expect(printable("abcdef", limit: 6) == "abcdef")
        #expect(printable("abcdefg", limit: 6) == "abcdef…")
        #expect(printable(String(repeating: "\u{1b}", count: 1000), limit: 60).utf8.count <= 63)
        #expect(printable("üüü", limit: 5) == "üü…", "not in the middle of a character")
    }
}
