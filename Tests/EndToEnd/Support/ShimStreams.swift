import Glibc
import LinuxSystem

/// Where a process's streams go.
enum ShimStreams {
    /// Nowhere: the engine names none.
    case none
    /// Output to files; no input.
    case files(output: String, errors: String)
    case fifos(ShimFifos)

    /// As Create and Exec name them.
    var names: (stdin: String, stdout: String, stderr: String) {
        switch self {
        case .none: ("", "", "")
        case .files(let output, let errors): ("", "file://\(output)", "file://\(errors)")
        case .fifos(let fifos): (fifos.input ?? "", fifos.path("stdout"), fifos.path("stderr"))
        }
    }
}

/// The fifos of a process, whose other ends are the test's, as containerd's clients have them.
final class ShimFifos: Sendable {
    private let directory: String
    /// The path of that for input; nil: none.
    let input: String?
    let output: Collector
    let errors: Collector

    /// - Parameter directory: a new one of theirs.
    init(in directory: String, hasInput: Bool) throws {
        self.directory = directory
        guard mkdir(directory, 0o700) == 0 else { throw LabError("mkdir \(directory): errno \(errno)") }
        for name in ["stdin", "stdout", "stderr"] where mkfifo("\(directory)/\(name)", 0o600) != 0 {
            throw LabError("mkfifo \(directory)/\(name): errno \(errno)")
        }
        input = hasInput ? "\(directory)/stdin" : nil
        output = try Self.reader("\(directory)/stdout")
        errors = try Self.reader("\(directory)/stderr")
    }

    func path(_ name: String) -> String { "\(directory)/\(name)" }

    /// Gathers what a fifo's first writer writes, until nobody has the fifo open for writing any more.
    private static func reader(_ path: String) throws -> Collector {
        // Opened without waiting for a writer.
        let descriptor = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY | O_NONBLOCK))
        try descriptor.setNonBlocking(false)
        return try Collector(descriptor)
    }

    /// Another client's end of the input: closing it is no end of the input.
    func writer() throws -> Writer {
        guard let input else { throw LabError("no input") }
        return Writer(SharedDescriptor(try OwnedDescriptor.open(input, O_WRONLY)))
    }
}
