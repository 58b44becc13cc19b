import Glibc
import LinuxSystem
import OCISpec

/// A pod of this host, as its state directory describes it.
public struct PodEntry: Sendable, Equatable, Codable {
    public var id: String
    /// containerd's namespace; empty for `martlet run`.
    public var namespace: String
    /// Whether its server lives. What a dead server left can be removed.
    public var isRunning: Bool
    /// The server's process id; 0 when nothing was written down.
    public var pid: Int32
    public var bundle: String
    /// Absolute path of its state.
    public var directory: String
    /// Absolute path of the socket that its server listens at; empty when nothing was written down.
    public var socket: String
    /// Absolute path of the socket at which its server answers HTTP requests for its metrics; nil when nothing was written down.
    public var metrics: String?
    /// The name of the template that its machine has started from; nil: it has booted.
    public var template: String?
    /// Whether its machine was ready before there was a pod (`martlet pool`).
    public var isFromPool = false
}

/// The pods of this host.
public enum PodList {
    /// All pods whose state lies below `root` (`paths.root`), by their namespaces and ids.
    public static func all(root: String) -> [PodEntry] {
        var found: [PodEntry] = []
        for name in names(in: root) {
            if name.hasPrefix(StateDirectory.namespacePrefix) {
                let namespace = String(name.dropFirst(StateDirectory.namespacePrefix.count))
                found += names(in: "\(root)/\(name)").map { entry(root: "\(root)/\(name)", id: $0, namespace) }
            } else if access("\(root)/\(name)/lock", F_OK) == 0 {
                found.append(entry(root: root, id: name, ""))
            }
        }
        return found.sorted { ($0.namespace, $0.id) < ($1.namespace, $1.id) }
    }

    /// The pod of that id, or the only one whose id begins so.
    package static func find(_ name: String, in pods: [PodEntry]) throws(SandboxError) -> PodEntry {
        if let pod = pods.first(where: { $0.id == name }) { return pod }
        let found = pods.filter { !name.isEmpty && $0.id.hasPrefix(name) }
        guard found.count < 2 else {
            throw .invalid("pod \(name): \(found.count) pods begin so: \(found.map(\.id).joined(separator: ", "))")
        }
        guard let pod = found.first else { throw .notFound("pod \(name)") }
        return pod
    }

    /// Removes what pods left whose servers have died: processes, cgroups, sockets, directories.
    ///
    /// - Returns: those pods.
    public static func clean(root: String) -> [PodEntry] {
        let dead = all(root: root).filter { !$0.isRunning }
        for pod in dead {
            StateDirectory(path: pod.directory).sweep()
        }
        return dead
    }

    /// Removes what creations left that were killed before they wrote down whose pod it is: nobody else knows of it.
    ///
    /// - Parameter root: `paths.root`; the pods of containerd's namespaces below it have a caller who knows their names.
    package static func cleanUnfinished(root: String) throws {
        // Nobody is between two steps of making a directory while this is held.
        let lock = try StateDirectory.lock(root: root)
        defer { withExtendedLifetime(lock) {} }
        for name in names(in: root)
        where (try? ContainerID(name)) != nil && !name.hasPrefix(StateDirectory.namespacePrefix) {
            let directory = StateDirectory(root: root, id: name)
            if directory.isUnfinished() { directory.sweep() }
        }
    }

    private static func entry(root: String, id: String, _ namespace: String) -> PodEntry {
        let directory = StateDirectory(root: root, id: id)
        let state = directory.read()
        return PodEntry(
            id: id, namespace: namespace, isRunning: !directory.isAbandoned(),
            pid: state?.processes.first?.pid ?? 0, bundle: state?.bundle ?? "", directory: directory.path,
            socket: state?.socket ?? "", metrics: state?.metrics, template: state?.template,
            isFromPool: state?.isFromPool ?? false)
    }

    private static func names(in path: String) -> [String] {
        ((try? directoryNames(path)) ?? []).filter { !$0.hasPrefix(".") }
    }
}
