import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// `martlet spec`: writes a config.json to start from into `bundle`.
///
/// - Throws: EEXIST when there is one already; it is left as it is.
public func writeStandardSpec(bundle: String) throws {
    let path = bundle + "/config.json"
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .withoutEscapingSlashes, .sortedKeys]
    var text = String(decoding: try encoder.encode(Spec.standard()), as: UTF8.self) + "\n"
    let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
    let written = try text.withUTF8 { bytes in try check("write", path, write(file.raw, bytes.baseAddress, bytes.count))
    }
    guard written == text.utf8.count else {
        unlink(path)
        throw SystemError("write", path, errno: .noSpace)
    }
}
