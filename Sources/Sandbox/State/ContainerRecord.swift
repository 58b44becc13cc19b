import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// What the command line keeps of a container from its creation to its deletion: `ROOT/@containers/ID`.
///
/// The pod's server knows the rest. A server that dies takes its containers with it, so a record whose server is dead is one of a
/// stopped container.
public struct ContainerRecord: Codable, Sendable, Equatable {
    public var id: String
    /// Absolute path.
    public var bundle: String
    /// Absolute path of the root file system on the host.
    public var rootfs: String
    public var annotations: [String: String]
    /// RFC 3339, with nanoseconds, UTC.
    public var created: String
    /// The pod's id, and its state directory.
    package var pod: String
    package var podPath: String
    /// Where the pod's server listens.
    package var socket: String
    /// The container's process on the host; nil: it has not been started yet.
    package var process: StateDirectory.ProcessRecord?
    /// Whether the record outlives its pod, until the container is deleted (`run --keep`); nil: it does not.
    package var isKept: Bool?

    package init(
        id: String, bundle: String, rootfs: String, annotations: [String: String], pod: String,
        podDirectory: String, socket: String
    ) {
        self.id = id
        self.bundle = bundle
        self.rootfs = rootfs
        self.annotations = annotations
        (self.pod, podPath, self.socket) = (pod, podDirectory, socket)
        created = Timestamp.now()
    }

    /// The pod's state on disk.
    package var podDirectory: StateDirectory { StateDirectory(path: podPath) }

    /// The process on the host, as long as it runs.
    package var pid: Int32? {
        guard let process, ProcessStatus.startTime(of: process.pid) == process.startTime else { return nil }
        return process.pid
    }

    /// Notes the process on the host.
    package mutating func note(pid: Int32) {
        process = StateDirectory.ProcessRecord(name: "container", pid: pid)
    }
}

/// The records of one root of states.
package struct ContainerRecords: Sendable {
    /// Below `paths.root`. No container's id has this name.
    private static let directory = "@containers"
    private let root: String
    private let path: String

    /// - Parameter root: `paths.root`.
    package init(root: String) {
        self.root = root
        path = "\(root)/\(Self.directory)"
    }

    private func path(of id: String) -> String { "\(path)/\(id)" }

    /// Takes the id: no other container may be created with it then.
    ///
    /// - Throws: `SandboxError.alreadyExists`.
    package func claim(_ id: String) throws {
        for _ in 0..<100 {
            // As `StateDirectory` makes it: users of pods pass through it.
            try makeDirectories(root, mode: 0o711)
            try makeDirectories(path, mode: 0o700)
            do throws(SystemError) {
                _ = try OwnedDescriptor.open(path(of: id), O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
                return
            } catch {
                switch error.errno {
                case .fileExists: throw SandboxError.alreadyExists(id)
                // The last record has been removed since, and the directory with it.
                case .noSuchFileOrDirectory: continue
                default: throw error
                }
            }
        }
        throw SystemError("open", path(of: id), errno: .noSuchFileOrDirectory)
    }

    package func write(_ record: ContainerRecord) throws {
        try replaceFile(path(of: record.id), by: "\(path)/.\(getpid())", with: JSON.encode(record))
    }

    /// - Returns: nil where there is none; and for a container whose creation has not come far enough.
    package func read(_ id: String) -> ContainerRecord? {
        guard let bytes = try? Data(contentsOf: URL(filePath: path(of: id))) else { return nil }
        return try? JSONDecoder().decode(ContainerRecord.self, from: bytes)
    }

    /// Whether the id is taken.
    package func isTaken(_ id: String) -> Bool { access(path(of: id), F_OK) == 0 }

    /// Whether the id was taken long ago by a creation that never came to write its record, and so has died.
    package func isAbandoned(_ id: String) -> Bool {
        var facts = stat()
        return stat(path(of: id), &facts) == 0 && facts.st_size == 0 && time(nil) - facts.st_mtim.tv_sec > 10
    }

    /// Whose the record is.
    package func owner(_ id: String) -> uid_t {
        var facts = stat()
        return stat(path(of: id), &facts) == 0 ? facts.st_uid : 0
    }

    /// All ids, sorted.
    package func all() -> [String] {
        ((try? directoryNames(path)) ?? []).filter { !$0.hasPrefix(".") }.sorted()
    }

    /// Removes those of a pod's containers.
    package func remove(ofPod pod: String) {
        for id in all() where read(id)?.pod == pod { remove(id) }
    }

    package func remove(_ id: String) {
        unlink(path(of: id))
        rmdir(path)
    }
}

/// Times as text.
public enum Timestamp {
    /// Now.
    static func now() -> String { text(wallClockNanoseconds()) }

    /// - Parameter nanoseconds: since the epoch.
    /// - Returns: RFC 3339 with nanoseconds, UTC.
    public static func text(_ nanoseconds: Int64) -> String {
        var parts = tm()
        var seconds = time_t(nanoseconds / 1_000_000_000)
        gmtime_r(&seconds, &parts)
        var buffer = [CChar](repeating: 0, count: 32)
        strftime(&buffer, buffer.count, "%Y-%m-%dT%H:%M:%S", &parts)
        let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return "\(text).\(String(nanoseconds % 1_000_000_000 + 1_000_000_000).dropFirst())Z"
    }
}
