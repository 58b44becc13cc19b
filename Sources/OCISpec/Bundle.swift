import Glibc

/// A bundle: a directory with a config.json, whose paths may be relative to it.
public struct Bundle: Sendable, Equatable {
    /// The limit for the size of config.json, bytes.
    public static let maximumConfigSize = 16 << 20

    /// Absolute.
    public let directory: String
    public var spec: Spec

    /// Reads and validates `directory`/config.json.
    ///
    /// - Throws: `SpecError` with the file, and the properties that are wrong.
    public init(directory: String) throws(SpecError) {
        guard let absolute = Self.resolve(directory) else {
            throw .bundle(path: directory, reason: "bundle: \(Self.errorText())")
        }
        var info = stat()
        guard stat(absolute, &info) == 0, info.st_mode & S_IFMT == S_IFDIR else {
            throw .bundle(path: directory, reason: "the bundle is not a directory")
        }
        let file = absolute == "/" ? "/config.json" : absolute + "/config.json"
        let spec = try JSON.decode(Spec.self, from: Self.read(file), file: file)
        try spec.validate(file: file)
        self.directory = absolute
        self.spec = spec
    }

    /// The absolute form of a path in the configuration.
    public func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : directory + "/" + path
    }

    /// The absolute path of the root file system; empty when the configuration has none, which validation refuses.
    public var rootPath: String { spec.root.map { absolute($0.path) } ?? "" }

    private static func resolve(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    private static func read(_ file: String) throws(SpecError) -> [UInt8] {
        // Non-blocking: the open must not hang when config.json is a fifo.
        let descriptor = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .bundle(path: file, reason: errorText()) }
        defer { close(descriptor) }
        var info = stat()
        guard fstat(descriptor, &info) == 0 else { throw .bundle(path: file, reason: errorText()) }
        guard info.st_mode & S_IFMT == S_IFREG else { throw .bundle(path: file, reason: "not a regular file") }
        guard info.st_size <= maximumConfigSize else {
            throw .bundle(path: file, reason: "larger than \(maximumConfigSize >> 20) MiB (\(info.st_size) bytes)")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= maximumConfigSize {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw .bundle(path: file, reason: errorText())
            }
            bytes += chunk[..<count]
        }
        throw .bundle(path: file, reason: "larger than \(maximumConfigSize >> 20) MiB")
    }

    private static func errorText() -> String { String(cString: strerror(errno)) }
}
