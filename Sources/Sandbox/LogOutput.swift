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
    /// The lowest level that is written unless `debug` is set.
    public var level: Logger.Level

    public init(
        file: String? = nil, format: Format = .text, debug: Bool = false, level: Logger.Level = .warning
    ) {
        self.file = file
        self.format = format
        self.debug = debug
        self.level = level
    }

    /// A logger that writes there.
    public func logger() throws -> Logger {
        let file = try file.map {
            SharedDescriptor(try OwnedDescriptor.open($0, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600))
        }
        let format = format
        var logger = Logger(label: "martlet") { _ in LineHandler(file: file, format: format) }
        logger.logLevel = debug ? .debug : level
        return logger
    }

    /// The same settings as arguments for a `martlet` that is started.
    public var arguments: [String] {
        (file.map { ["--log", $0] } ?? []) + ["--log-format", format.rawValue] + (debug ? ["--debug"] : [])
    }
}
