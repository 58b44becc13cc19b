import FoundationEssentials
import Glibc
import LinuxSystem
public import Logging

/// Where log lines go and how they look; what `--log`, `--log-format` and `--debug` say.
public struct LogOutput: Sendable {
    public enum Format: String, Sendable, CaseIterable { case text, json }

    /// nil: standard error.
    public var file: String?
    public var format: Format
    public var debug: Bool

    public init(file: String? = nil, format: Format = .text, debug: Bool = false) {
        self.file = file
        self.format = format
        self.debug = debug
    }

    /// A logger that writes there.
    public func logger() throws -> Logger {
        let file = try file.map {
            SharedDescriptor(try OwnedDescriptor.open($0, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600))
        }
        let format = format
        var logger = Logger(label: "martlet") { _ in LineHandler(file: file, format: format) }
        logger.logLevel = debug ? .debug : .warning
        return logger
    }

    /// The same settings as arguments for a `martlet` that is started.
    public var arguments: [String] {
        (file.map { ["--log", $0] } ?? []) + ["--log-format", format.rawValue] + (debug ? ["--debug"] : [])
    }
}

/// One line a message: `martlet: error: …`, or runc's JSON of level, msg and time.
private struct LineHandler: LogHandler {
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
        let words = "\(event.message)"
        if let file {
            write(format == .json ? json(event.level, words) : "\(time()) \(event.level): \(words)\n", to: file.raw)
            // Who waits in front of a terminal sees errors even so.
            if event.level < .error { return }
        } else if format == .json {
            return write(json(event.level, words), to: STDERR_FILENO)
        }
        write("martlet: \(event.level == .error ? "" : "\(event.level): ")\(words)\n", to: STDERR_FILENO)
    }

    private func time() -> String { Date().formatted(.iso8601) }

    private func json(_ level: Logger.Level, _ words: String) -> String {
        let entry = ["level": "\(level)", "msg": words, "time": time()]
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(entry) else { return "" }
        return String(decoding: bytes, as: UTF8.self) + "\n"
    }

    private func write(_ line: String, to descriptor: Int32) {
        // One write a line: lines of several processes in one file stay whole.
        var line = line
        line.withUTF8 { _ = Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }
}
