import FoundationEssentials
import Glibc
import LinuxSystem
import Logging

/// Writes each log event as one line of text or of JSON; see `LogLine`.
struct LineHandler: LogHandler {
    /// nil: standard error.
    let file: SharedDescriptor?
    let format: LogOutput.Format
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .warning

    init(file: SharedDescriptor?, format: LogOutput.Format) {
        self.file = file
        self.format = format
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let line = LogLine(
            level: event.level, message: "\(event.message)",
            metadata: metadata.merging(event.metadata ?? [:]) { $1 }, time: Date().formatted(.iso8601))
        if let file {
            write(format == .json ? line.json : line.fields, to: file.raw)
            // Whoever sits at a terminal sees errors all the same.
            if event.level < .error { return }
        } else if format == .json {
            return write(line.json, to: STDERR_FILENO)
        } else if event.level <= .debug {
            return write(line.fields, to: STDERR_FILENO)
        }
        write("martlet: \(event.level == .error ? "" : "\(event.level): ")\(line.text)\n", to: STDERR_FILENO)
    }

    private func write(_ line: String, to descriptor: Int32) {
        // One write a line: lines of several processes in one file stay whole.
        var line = line
        line.withUTF8 { _ = Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }
}

/// What one line of a log says. Nothing that a guest or another program has written can look like a further one.
struct LogLine {
    var level: Logger.Level
    var message: String
    var metadata: Logger.Metadata
    /// ISO 8601.
    var time: String

    private static let longestLine = 16 << 10

    /// The message. Where it has several lines (the last ones of a console), all but the first are indented.
    private var shown: String {
        message.split(separator: "\n", omittingEmptySubsequences: false)
            .map { printable(String($0), limit: Self.longestLine) }.joined(separator: "\n  ")
    }

    /// The message and then the metadata as `key=value`, in the order of the keys. A value with white space, quotes or an
    /// equals sign is quoted.
    var text: String {
        shown + pairs
    }

    /// The metadata, each with a space before it.
    private var pairs: String {
        metadata.sorted { $0.key < $1.key }.map { " \(printable($0.key))=\(Self.quoted("\($0.value)"))" }.joined()
    }

    /// runc's fields time, level and msg, and then the metadata, as runc's text has them. With the line's end.
    var fields: String {
        "time=\"\(time)\" level=\(level) msg=\(Self.quoted(message))\(pairs)\n"
    }

    /// runc's fields level, msg and time, and each metadata value as a further string field. With the line's end.
    var json: String {
        var fields = metadata.mapValues { printable("\($0)", limit: Self.longestLine) }
        fields.merge(["level": "\(level)", "msg": shown, "time": time]) { $1 }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(fields) else { return "" }
        return String(decoding: bytes, as: UTF8.self) + "\n"
    }

    private static func quoted(_ value: String) -> String {
        let needsQuotes = value.isEmpty || value.contains { $0.isWhitespace || $0 == "\"" || $0 == "=" }
        if !needsQuotes { return printable(value, limit: longestLine) }
        let escaped = value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
        return "\"\(printable(escaped, limit: longestLine))\""
    }
}
