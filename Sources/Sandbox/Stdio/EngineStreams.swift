import CLinux
import Glibc
import LinuxSystem

/// The engine's ends of a process's streams. nil: the process has no such stream.
struct EngineStreams: Sendable {
    /// One end.
    struct End: Sendable {
        let descriptor: SharedDescriptor
        /// Of a fifo that is read: its write end, which keeps the process's input from ending when an engine comes and goes.
        var writeEnd: SharedDescriptor?
    }

    var stdin: End?
    var stdout: End?
    var stderr: End?
    /// Whether an exit is reported only when its reader has taken all output, however long that takes: a person's pipe. An
    /// engine that is away must not delay the report.
    let waitsForReader: Bool

    init(_ source: StreamSource, terminal: Bool, of container: String, namespace: String) throws {
        switch source {
        case .named(let names):
            try self.init(names, terminal: terminal, of: container, namespace: namespace)
        case .handed(let handed):
            let ends = handed.stdio.map { End(descriptor: $0) }
            self.init(stdin: ends[0], stdout: ends[1], stderr: terminal ? nil : ends[2], waitsForReader: true)
        }
    }

    private init(stdin: End?, stdout: End?, stderr: End?, waitsForReader: Bool) {
        (self.stdin, self.stdout, self.stderr) = (stdin, stdout, stderr)
        self.waitsForReader = waitsForReader
    }

    /// Opens what the Task service's `stdin`, `stdout` and `stderr` name: a fifo by its path, or what `StreamTarget` knows.
    init(_ names: StreamNames, terminal: Bool, of container: String, namespace: String) throws {
        let input = try StreamTarget(names.stdin, field: "stdin")
        let output = try StreamTarget(names.stdout, field: "stdout")
        let errors = terminal ? nil : try StreamTarget(names.stderr, field: "stderr")
        let stdin = try input.map { try $0.openInput() }
        if case .program(let program)? = output {
            // One program takes both.
            let logger = try LoggingProgram(program, container: container, namespace: namespace)
            self.init(
                stdin: stdin, stdout: End(descriptor: logger.stdout),
                stderr: terminal ? nil : End(descriptor: logger.stderr), waitsForReader: false)
        } else {
            self.init(
                stdin: stdin, stdout: try output.map { try $0.openOutput() },
                stderr: try errors.map { try $0.openOutput() }, waitsForReader: false)
        }
    }
}

/// What the name of a stream stands for.
enum StreamTarget: Equatable {
    /// A fifo, or whatever is at that path.
    case path(String)
    /// A file that output is appended to.
    case file(String)
    case program(LoggingProgram.Command)

    /// As containerd's own shim reads it: a path, or a URI (fifo, file, binary). nil: no stream.
    init?(_ name: String, field: String) throws {
        if name.isEmpty { return nil }
        if let scheme = name.firstRange(of: "://") {
            let rest = String(name[scheme.upperBound...])
            switch name[..<scheme.lowerBound] {
            case "fifo": self = .path(try Self.path(rest, field))
            case "file": self = .file(try Self.path(rest, field))
            case "binary": self = .program(try LoggingProgram.Command(rest, field))
            default:
                throw SandboxError.unsupported("\(field): \(name): a URI other than fifo://, file:// and binary://")
            }
        } else {
            self = .path(name)
        }
    }

    private static func path(_ text: String, _ field: String) throws -> String {
        let path = text.prefix { $0 != "?" && $0 != "#" }.removingPercentEncoding
        guard let path, path.hasPrefix("/") else {
            throw SandboxError.invalid("\(field): \(text): not an absolute path")
        }
        return path
    }

    func openInput() throws -> EngineStreams.End {
        switch self {
        case .program: throw SandboxError.unsupported("stdin: a program as a source of input")
        case .path(let path), .file(let path):
            // O_NONBLOCK: open(2) of a fifo would wait for a writer.
            let input = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY))
            let isFifo = Self.type(of: input) == S_IFIFO
            let writeEnd = isFifo ? SharedDescriptor(try OwnedDescriptor.open(path, O_WRONLY | O_NONBLOCK)) : nil
            return .init(descriptor: input, writeEnd: writeEnd)
        }
    }

    func openOutput() throws -> EngineStreams.End {
        switch self {
        case .program: throw SandboxError.invalid("stderr: a program takes stdout and stderr, and is named as stdout")
        case .path(let path):
            // A fifo is opened for reading too: open(2) does not wait for a reader then, and a write does not fail without one.
            var facts = stat()
            let isFifo = stat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFIFO
            let flags = isFifo ? O_RDWR : O_WRONLY
            return .init(descriptor: SharedDescriptor(try OwnedDescriptor.open(path, flags | O_NOCTTY)))
        case .file(let path):
            if let slash = path.lastIndex(of: "/"), slash > path.startIndex {
                try makeDirectories(String(path[..<slash]))
            }
            return .init(
                descriptor: SharedDescriptor(
                    try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, mode: 0o644)))
        }
    }

    private static func type(of descriptor: SharedDescriptor) -> mode_t {
        var facts = stat()
        return fstat(descriptor.raw, &facts) == 0 ? facts.st_mode & S_IFMT : 0
    }
}

extension StringProtocol {
    /// Without its %XX; nil where they are not UTF-8 text.
    var removingPercentEncoding: String? {
        var bytes: [UInt8] = []
        var rest = Array(utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
