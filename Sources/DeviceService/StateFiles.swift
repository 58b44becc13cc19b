import Glibc
public import LinuxSystem
public import VMMControl

/// Reads a state from a file, from its beginning on.
///
/// - Parameters:
///   - name: what the state is of, for errors.
///   - most: bytes that it may have.
public func readState(_ file: SharedDescriptor, _ name: String, atMost most: Int) throws -> [UInt8] {
    var facts = stat()
    try check("fstat", name, fstat(file.raw, &facts))
    guard facts.st_size <= most else { throw RequestError("\(name): \(facts.st_size) bytes, more than \(most)") }
    var bytes = [UInt8](repeating: 0, count: Int(facts.st_size))
    let count = try bytes.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, name) }
    return Array(bytes.prefix(count))
}

/// Writes a state to a file, from its beginning on.
///
/// - Returns: the reply `saved`.
public func writeState(_ bytes: [UInt8], to file: SharedDescriptor, _ name: String) throws -> ControlReply {
    try writeAll(bytes, to: file.raw, name)
    return .saved(bytes: UInt64(bytes.count))
}
