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
        /// The memory for the guest and the files of its share, MiB.
        var memoryMiB: Int
        var timeout: Duration
    }

    /// Boots the guest and waits until it has powered off.
    ///
    /// - Returns: the phases of its work.
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
        let guest = try Guest(
            plan.driver, plan.machine, devices: QEMUDriver.filesArguments(descriptor: Guest.firstDescriptor),
            sockets: [server.machine], log: log
        ) { line in
            let now = monotonicNanoseconds()
            recorder.withLock { $0.record(line, at: now) }
        }
        defer { guest.end() }
        let end = try guest.wait(plan.timeout) { server.ended }
        let record = recorder.withLock { $0 }
        guard record.isDone else {
            let reported = record.failure.map { ["the guest: \($0)"] } ?? []
            let reasons = reported + (end.map { [$0] } ?? []) + errors.withLock { $0.suffix(5) }
            let tail = guest.console.tail(10).map { "\n  \($0)" }.joined()
            throw BenchError("\(kind.rawValue): \(reasons.joined(separator: "; "))\(tail)")
        }
        return record.phases
    }

    /// Allocates and frees memory. If this host is a virtual machine itself, its own host may allocate a page at the first access,
    /// which takes longer than writing it and would be measured for the side that comes first.
    private static func touchMemory(_ mib: Int) throws(SystemError) {
        _ = try Mapping(
            file: -1, count: mib << 20, flags: MAP_PRIVATE | MAP_ANONYMOUS | Int32(bitPattern: UInt32(MAP_POPULATE)))
    }
}

/// The directory of one run, which contains the share's root.
struct RunDirectory: Sendable {
    let path: String
    /// The root of the share: virtiofsd serves all of it, Martlet the entry `work/files`.
    var root: String { path + "/root" }
    var work: String { root + "/work/files" }

    /// Creates the directory in `parent`, and waits until the file system has written the data of earlier runs.
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
            let line = "martlet: can't remove \(path): \(error)\n"
            _ = write(STDERR_FILENO, line, line.utf8.count)
        }
    }
}
