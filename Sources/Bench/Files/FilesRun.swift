import CLinux
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Synchronization

/// One guest with one file server, from its start to its end.
enum FilesRun {
    struct Plan: Sendable {
        var driver: QEMUDriver
        var machine: VMConfiguration
        var virtiofsd: String
        var directory: String
        /// What the guest and the files of its share take, MiB.
        var memoryMiB: Int
        var timeout: Duration
    }

    /// Boots the guest, waits until it has powered off, and answers what it did.
    static func perform(_ plan: Plan, _ kind: FileServerKind) throws -> [PhaseRecorder.Phase] {
        let directory = try RunDirectory(in: plan.directory)
        defer { directory.remove() }
        let errors = Mutex<[String]>([])
        let log: @Sendable (String) -> Void = { line in errors.withLock { $0.append(line) } }
        let server: any FileServerProcess =
            switch kind {
            case .martlet: try MartletServer(directory, log: log)
            case .virtiofsd: try VirtiofsServer(directory, program: plan.virtiofsd, log: log)
            }
        defer { server.end() }
        try touchMemory(plan.memoryMiB)
        let recorder = Mutex(PhaseRecorder())
        let guest = try Guest(plan, files: server.machine, log: log) { line in
            let now = monotonicNanoseconds()
            recorder.withLock { $0.take(line, at: now) }
        }
        defer { guest.end() }
        let end = try guest.wait(plan.timeout) { server.ended }
        let record = recorder.withLock { $0 }
        guard record.isDone else {
            let guestWords = record.failure.map { ["the guest: \($0)"] } ?? []
            let words = guestWords + (end.map { [$0] } ?? []) + errors.withLock { $0.suffix(5) }
            let tail = guest.console.tail(10).map { "\n  \($0)" }.joined()
            throw BenchError("\(kind.rawValue): \(words.joined(separator: "; "))\(tail)")
        }
        return record.phases
    }

    /// Has this machine use so much memory and free it: a machine that is a virtual one itself may get a page from its host
    /// at the first touch only, which takes longer than to write it, and would be measured of whoever comes first.
    private static func touchMemory(_ mib: Int) throws(SystemError) {
        _ = try Mapping(
            file: -1, count: mib << 20, flags: MAP_PRIVATE | MAP_ANONYMOUS | Int32(bitPattern: UInt32(MAP_POPULATE)))
    }
}

/// A directory of one run, with the share's root in it.
struct RunDirectory: Sendable {
    let path: String
    /// What the guest's share is: for virtiofsd the whole of it, for Martlet the entry `work/files`.
    var root: String { path + "/root" }
    var work: String { root + "/work/files" }

    /// Makes it below `parent`, after what earlier runs have written is on the disk.
    init(in parent: String) throws {
        var template = Array("\(parent)/martlet-bench.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError.last("mkdtemp", parent) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for directory in [root, root + "/work", work] { try check("mkdir", directory, mkdir(directory, 0o755)) }
        let file = try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY)
        try check("syncfs", path, martlet_syncfs(file.raw))
    }

    func remove() {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            let line = "martlet: \(path) stays: \(error)\n"
            _ = write(STDERR_FILENO, line, line.utf8.count)
        }
    }
}
