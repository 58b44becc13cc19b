import Glibc
import LinuxSystem
import Testing

/// The bytes of a file.
func contents(of path: String) throws -> [UInt8] {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = try retrying("read", path) { read(file.raw, &piece, piece.count) }
        if count == 0 { return bytes }
        bytes += piece[..<count]
    }
}

func write(_ text: String, to path: String) throws {
    let file = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    let bytes = Array(text.utf8)
    var written = 0
    while written < bytes.count {
        written += try bytes[written...].withUnsafeBytes {
            try check("write", path, Glibc.write(file.raw, $0.baseAddress, $0.count))
        }
    }
}

/// A new directory; `remove` takes it away with all that is in it.
struct TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/martlet-rpc-XXXXXX".utf8CString)
        path = try template.withUnsafeMutableBufferPointer {
            guard let name = mkdtemp(try #require($0.baseAddress)) else { throw SystemError.last("mkdtemp", "/tmp") }
            return String(cString: name)
        }
    }

    func remove() {
        let ended = try? start("/bin/rm", ["-rf", path]).waitForEnd(timeout: .seconds(30))
        if ended != .exited(0) { Issue.record("\(path) is left") }
    }
}

/// What is in a directory.
func names(in path: String) throws -> [String] {
    guard let directory = opendir(path) else { throw SystemError.last("opendir", path) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        names.append(
            withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return names
}

func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

/// Starts a program of this machine.
func start(
    _ executable: String, _ arguments: [String], environment variables: [String] = [], output: Int32 = -1
) throws -> ChildProcess {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return try ChildProcess(
        executable,
        .init(
            executable: executable, arguments: arguments, environment: [path] + variables,
            descriptors: [-1, output, 2],
            diesWithParent: true))
}
