import Glibc
import Hypervisor
import LinuxSystem
import OCISpec

/// A directory with a checkpoint: `checkpoint.json`, and the files of a `MachineTemplate`. `checkpoint.json` is written last: a
/// directory without it has no checkpoint.
struct CheckpointDirectory: Sendable {
    let machine: MachineTemplate
    private var path: String { machine.directory }
    private var description: String { "\(path)/checkpoint.json" }
    /// Whether this made the directory.
    private let isOwn: Bool

    private var files: [String] { [machine.state, machine.memory, machine.files] }

    /// Takes a directory for a new checkpoint; makes it where it is not there.
    ///
    /// - Throws: `SandboxError` where it has a checkpoint already, or files by the names of one's.
    init(making path: String) throws {
        try Self.check(path)
        machine = MachineTemplate(directory: path)
        var facts = stat()
        isOwn = stat(path, &facts) != 0
        for file in files + [description] where stat(file, &facts) == 0 {
            throw SandboxError.wrongState("checkpoint: \(file) exists already")
        }
        if isOwn { try makeDirectories(path, mode: 0o700) }
    }

    /// Opens a checkpoint.
    init(path: String) throws {
        try Self.check(path)
        machine = MachineTemplate(directory: path)
        isOwn = false
    }

    private static func check(_ path: String) throws {
        guard path.hasPrefix("/") else { throw SandboxError.invalid("checkpoint: \(path): not an absolute path") }
    }

    /// Makes the directory a checkpoint.
    func finish(_ checkpoint: Checkpoint) throws {
        try replaceFile(description, by: "\(path)/.checkpoint.json", with: JSON.encode(checkpoint))
    }

    /// Removes what has been written.
    func discard() {
        for file in files + [description, "\(path)/.checkpoint.json"] { unlink(file) }
        if isOwn { rmdir(path) }
    }

    /// Reads what the checkpoint is of.
    ///
    /// - Throws: `SandboxError` where there is none, or one that this version can't read.
    func read() throws -> Checkpoint {
        var facts = stat()
        guard stat(description, &facts) == 0 else {
            throw SandboxError.notFound("checkpoint \(description)")
        }
        struct Version: Decodable { var version: Int }
        let bytes = Array(try readText(description).utf8)
        let version = try JSON.decode(Version.self, from: bytes, file: description).version
        guard version == Checkpoint.currentVersion else {
            throw SandboxError.unsupported("\(description): version \(version) (this is \(Checkpoint.currentVersion))")
        }
        let checkpoint = try JSON.decode(Checkpoint.self, from: bytes, file: description)
        try checkpoint.check()
        return checkpoint
    }
}
