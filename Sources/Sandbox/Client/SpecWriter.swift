import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// What `martlet spec` changes of the standard specification; nil leaves a field as it is.
public struct SpecChanges: Sendable {
    /// process.args.
    public var arguments: [String]?
    /// process.terminal.
    public var terminal: Bool?
    /// root.path.
    public var rootfs: String?

    public init(arguments: [String]? = nil, terminal: Bool? = nil, rootfs: String? = nil) {
        self.arguments = arguments
        self.terminal = terminal
        self.rootfs = rootfs
    }

    func apply(to spec: inout Spec) {
        if let arguments { spec.process?.args = arguments }
        if let terminal { spec.process?.terminal = terminal }
        if let rootfs { spec.root?.path = rootfs }
    }
}

/// `martlet spec`: writes a config.json to start from.
///
/// - Parameters:
///   - bundle: the directory that gets the file.
///   - changes: what differs from the standard specification.
/// - Throws: `SystemError`; EEXIST when there is a config.json already, which is left as it is.
public func writeStandardSpec(bundle: String, changes: SpecChanges = SpecChanges()) throws {
    let path = bundle + "/config.json"
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .withoutEscapingSlashes, .sortedKeys]
    var spec = Spec.standard()
    changes.apply(to: &spec)
    var text = String(decoding: try encoder.encode(spec), as: UTF8.self) + "\n"
    let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
    let written = try text.withUTF8 { bytes in try check("write", path, write(file.raw, bytes.baseAddress, bytes.count))
    }
    guard written == text.utf8.count else {
        unlink(path)
        throw SystemError("write", path, errno: .noSpace)
    }
}
