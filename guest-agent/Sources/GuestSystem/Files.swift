import Glibc
public import LinuxSystem

/// The whole of a small file as text; bytes that are not UTF-8 are replaced.
public func readText(_ path: String, limit: Int = 1 << 20) throws(SystemError) -> String {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    return try readText(file.raw, path, limit: limit)
}

/// What is left to read of `descriptor` as text, at most `limit` bytes.
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

/// Writes `text` to an existing file in one call, as the files of /proc and of cgroups want it.
public func writeText(_ text: String, to path: String) throws(SystemError) {
    let file = try OwnedDescriptor.open(path, O_WRONLY)
    let bytes = Array(text.utf8)
    try retrying("write \(text) to", path) { bytes.withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) } }
}

/// Makes a directory and those above it.
public func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
    if mkdir(path, mode) == 0 || Glibc.errno == EEXIST { return }
    guard Glibc.errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
        throw SystemError.last("mkdir", path)
    }
    try makeDirectories(String(path[..<slash]), mode: mode)
    if mkdir(path, mode) != 0, Glibc.errno != EEXIST { throw SystemError.last("mkdir", path) }
}
