import Glibc

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

/// The names in a directory, in no order, without `.` and `..`.
public func directoryNames(_ path: String) throws(SystemError) -> [String] {
    guard let directory = opendir(path) else { throw SystemError.last("opendir", path) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}
