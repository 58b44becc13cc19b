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
    private var newDescription: String { "\(path)/.checkpoint.json" }
    /// Whether `make` makes the directory.
    private let isOwn: Bool

    private var files: [String] { [machine.state, machine.memory, machine.files] }

    /// A directory for a new checkpoint; nothing is made yet.
    ///
    /// - Throws: `SandboxError` where it has a checkpoint already, or files by the names of one's.
    init(planning path: String) throws {
        try Self.check(path)
        machine = MachineTemplate(directory: path)
        var facts = stat()
        isOwn = stat(path, &facts) != 0
        for file in files + [description] where stat(file, &facts) == 0 {
            throw SandboxError.wrongState("checkpoint: \(file) exists already")
        }
    }

    /// Opens a checkpoint.
    init(path: String) throws {
        try Self.check(path)
        machine = MachineTemplate(directory: path)
        isOwn = false
    }

    private init(_ record: Record) {
        machine = MachineTemplate(directory: record.path)
        isOwn = record.isOwn
    }

    private static func check(_ path: String) throws {
        guard path.hasPrefix("/") else { throw SandboxError.invalid("checkpoint: \(path): not an absolute path") }
    }

    /// Makes the directory where it is not there.
    func make() throws { if isOwn { try makeDirectories(path, mode: 0o700) } }

    /// Makes the directory a checkpoint.
    func finish(_ checkpoint: Checkpoint) throws {
        try replaceFile(description, by: newDescription, with: JSON.encode(checkpoint))
    }

    /// Removes what has been written.
    func discard() {
        for file in files + [description, newDescription] { unlink(file) }
        if isOwn { rmdir(path) }
    }

    /// What is written down of a checkpoint before anything of it is made: whoever clears up after a crash knows of it.
    struct Record: Codable, Sendable, Equatable {
        /// Absolute.
        var path: String
        /// Whether the directory was made for the checkpoint.
        var isOwn: Bool
        /// Whether it goes with its pod, finished or not; else it stays when it is finished.
        var isTemporary: Bool

        /// Removes the checkpoint, unless it is finished and stays.
        func remove() {
            let directory = CheckpointDirectory(self)
            if isTemporary || access(directory.description, F_OK) != 0 { directory.discard() }
        }
    }

    /// - Parameter isTemporary: it goes with its pod.
    func record(isTemporary: Bool) -> Record { Record(path: path, isOwn: isOwn, isTemporary: isTemporary) }

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
