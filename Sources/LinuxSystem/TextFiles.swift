import Glibc

/// The contents of a small file as text. Bytes that are not UTF-8 are replaced.
///
/// - Parameter limit: reading stops after this many bytes.
public func readText(_ path: String, limit: Int = 1 << 20) throws(SystemError) -> String {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    return try readText(file.raw, path, limit: limit)
}

/// The rest of `descriptor` as text. Reading stops after `limit` bytes.
///
/// - Parameter path: used in errors.
public func readText(_ descriptor: Int32, _ path: String, limit: Int = 1 << 20) throws(SystemError) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while bytes.count < limit {
        let count = try retrying("read", path) { read(descriptor, &chunk, chunk.count) }
        if count == 0 { break }
        bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}
