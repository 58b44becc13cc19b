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

    /// Opens what the Task service's `stdin`, `stdout` and `stderr` name: a fifo by its path, or what `StreamTarget` knows.
    init(_ names: StreamNames, terminal: Bool, of container: String, namespace: String) throws {
        let input = try StreamTarget(names.stdin, field: "stdin")
        let output = try StreamTarget(names.stdout, field: "stdout")
        let errors = terminal ? nil : try StreamTarget(names.stderr, field: "stderr")
        waitsForReader = [input, output].contains { if case .inherited? = $0 { true } else { false } }
        stdin = try input.map { try $0.openInput() }
        if case .program(let program)? = output {
            // One program takes both.
            let logger = try LoggingProgram(program, container: container, namespace: namespace)
            stdout = End(descriptor: logger.stdout)
            stderr = terminal ? nil : End(descriptor: logger.stderr)
        } else {
            stdout = try output.map { try $0.openOutput() }
            stderr = try errors.map { try $0.openOutput() }
        }
    }
}

/// What the name of a stream stands for.
enum StreamTarget: Equatable {
    /// A descriptor that this process inherited.
    case inherited(Int32)
    /// A fifo, or whatever is at that path.
    case path(String)
    /// A file that output is appended to.
    case file(String)
    case program(LoggingProgram.Command)

    /// As containerd's own shim reads it: a path, or a URI (fifo, file, binary). nil: no stream.
    init?(_ name: String, field: String) throws {
        if name.isEmpty { return nil }
        if name.hasPrefix("fd:"), let number = Int32(name.dropFirst(3)) {
            self = .inherited(number)
        } else if let scheme = name.firstRange(of: "://") {
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
        case .inherited(let number): return .init(descriptor: try Self.inherited(number))
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
        case .inherited(let number): return .init(descriptor: try Self.inherited(number))
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

    private static func inherited(_ number: Int32) throws -> SharedDescriptor {
        SharedDescriptor(
            OwnedDescriptor(owning: try check("dup", "fd:\(number)", martlet_fcntl_int(number, F_DUPFD_CLOEXEC, 0))))
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
