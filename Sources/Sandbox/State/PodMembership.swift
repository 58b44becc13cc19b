import FoundationEssentials
import LinuxSystem
import OCISpec

/// Which pod a container belongs to, as its bundle says: one rule, whoever asks.
///
/// An engine's annotation names the pod, or else the container's network namespace does: it is that of a running pod. Otherwise
/// the container makes a pod of its own.
package struct PodMembership: Sendable, Equatable {
    /// A pod that an annotation names.
    package struct Named: Sendable, Equatable {
        package var id: String
        /// Whether the first container makes it where there is none.
        package var canBeMade: Bool
    }

    /// What is to be done.
    package enum Answer: Sendable, Equatable {
        /// The pod runs: its server, which has this state, takes the container at `socket`.
        case join(id: String, StateDirectory, socket: String)
        /// There is no such pod: the container makes it.
        case make(id: String)
        /// The pod is being made, or is about to end.
        case wait(id: String)
        /// A pod that must exist, and does not.
        case missing(id: String)
    }

    /// The container's.
    private let id: String
    /// `paths.root`.
    private let root: String
    /// Holds the states of the engine's pods.
    private let directory: String
    package let named: Named?
    /// Where the container's network is, unless it is the host's or yet to be made.
    package let network: NamespaceIdentity?

    /// - Parameters:
    ///   - namespace: containerd's; empty for the command line.
    ///   - annotations: of the bundle.
    ///   - networkPath: of the network namespace that the bundle names; empty without one.
    ///   - root: `paths.root`.
    /// - Throws: when an annotation names what can't be a pod.
    package init(
        id: String, namespace: String = "", annotations: [String: String], networkPath: String, root: String
    ) throws {
        self.id = id
        self.root = root
        directory = namespace.isEmpty ? root : StateDirectory.root(ofNamespace: namespace, below: root)
        named = try Self.named(in: annotations, by: id)
        let identity = networkPath.isEmpty ? nil : NamespaceIdentity(path: networkPath)
        network = identity?.isHosts("net") == true ? nil : identity
    }

    /// Of a bundle that has been read.
    package init(id: String, spec: Spec, root: String) throws {
        try self.init(
            id: id, annotations: spec.annotations,
            networkPath: spec.linux?.namespaces.first { $0.kind == .network }?.path ?? "", root: root)
    }

    /// Of the bundle in a directory, of which no more is read than this needs: what is wrong with the rest is refused when the
    /// container is made. A sandbox without a container has no config.json.
    package init(id: String, namespace: String, bundle: String, root: String) throws {
        let text = try? readText("\(bundle.isEmpty ? "." : bundle)/config.json", limit: Bundle.maximumConfigSize)
        let parts = text.flatMap { try? JSONDecoder().decode(Parts.self, from: Data($0.utf8)) }
        try self.init(
            id: id, namespace: namespace, annotations: parts?.annotations ?? [:],
            networkPath: parts?.linux?.namespaces?.first { $0.kind == .network }?.path ?? "", root: root)
    }

    private struct Parts: Decodable {
        struct Linux: Decodable { var namespaces: [OCISpec.Linux.Namespace]? }
        var annotations: [String: String]?
        var linux: Linux?
    }

    // MARK: Annotations

    /// Annotations that name the pod of a container, which exists: containerd's CRI plugin, and CRI-O.
    private static let sandboxAnnotations = ["io.kubernetes.cri.sandbox-id", crioAnnotation]
    private static let crioAnnotation = "io.kubernetes.cri-o.SandboxID"
    /// The annotation by which any client of containerd puts containers into one pod; the first of them makes it.
    private static let groupAnnotation = "io.containerd.runc.v2.group"
    /// podman names its pods as CRI-O does, also those whose containers share nothing.
    private static let managerAnnotation = ("io.container.manager", "libpod")

    /// By which both say of a container that it stands for its pod.
    private static let kindAnnotations = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]

    private static func named(in annotations: [String: String], by id: String) throws -> Named? {
        if kindAnnotations.contains(where: { annotations[$0] == "sandbox" }) { return nil }
        for name in sandboxAnnotations + [groupAnnotation] {
            guard let pod = annotations[name], !pod.isEmpty, pod != id else { continue }
            if name == crioAnnotation, annotations[managerAnnotation.0] == managerAnnotation.1 { continue }
            return Named(id: try ContainerID(pod).value, canBeMade: name == groupAnnotation)
        }
        return nil
    }

    // MARK: The answer

    /// What the states on disk say at this moment.
    package func answer() -> Answer {
        if let named {
            let pod = StateDirectory(root: directory, id: named.id)
            if let answer = Self.answer(named.id, pod) { return answer }
            return named.canBeMade ? .make(id: named.id) : .missing(id: named.id)
        }
        guard let network else { return .make(id: id) }
        for entry in PodList.all(root: root) where entry.isRunning {
            let pod = StateDirectory(path: entry.directory)
            guard pod.read()?.networkNamespace == network, let answer = Self.answer(entry.id, pod) else { continue }
            return answer
        }
        return .make(id: id)
    }

    /// nil where there is no pod.
    private static func answer(_ id: String, _ pod: StateDirectory) -> Answer? {
        guard pod.exists, !pod.isAbandoned() else { return nil }
        guard !pod.isEnding, let socket = pod.read()?.socket else { return .wait(id: id) }
        return .join(id: id, pod, socket: socket)
    }

    // MARK: Claiming

    /// A place for the container.
    package enum Claim: Sendable {
        /// In a running pod, whose server listens at the socket.
        case joined(id: String, StateDirectory, socket: String)
        /// In a pod that is the caller's to make: its directory is made, and its socket. Others that name the same network
        /// namespace join it from now on.
        case new(id: String, StateDirectory, lock: SharedDescriptor, StateDirectory.Listeners)

        /// The pod's.
        package var id: String {
            switch self {
            case .joined(let id, _, _), .new(let id, _, _, _): id
            }
        }

        package var directory: StateDirectory {
            switch self {
            case .joined(_, let directory, _), .new(_, let directory, _, _): directory
            }
        }

        package var socket: String {
            switch self {
            case .joined(_, _, let socket): socket
            case .new(_, _, _, let listeners): listeners.socket
            }
        }
    }

    /// How long one waits for a pod that is being made, or is about to end.
    private static let limit = Duration.seconds(10)

    /// Finds the container's pod, or makes the directory of a new one. Of several that ask at once for the same pod one makes
    /// it.
    ///
    /// - Throws: `SandboxError.notFound` without the pod that must exist, `alreadyExists` where a pod of the container's id
    ///   runs.
    package func claim() async throws -> Claim {
        let end = ContinuousClock.now + Self.limit
        while true {
            let isLast = ContinuousClock.now >= end
            if let claim = try await onThread("claim a pod", { try attempt(isLast: isLast) }) { return claim }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// - Parameter isLast: don't wait for the pod any more.
    /// - Returns: nil when one has to wait.
    private func attempt(isLast: Bool) throws -> Claim? {
        let lock = try StateDirectory.lock(root: root)
        defer { withExtendedLifetime(lock) {} }
        switch answer() {
        case .join(let pod, let directory, let socket): return .joined(id: pod, directory, socket: socket)
        case .make(let pod): return try make(pod)
        case .missing(let pod): throw SandboxError.notFound("pod \(pod), which container \(id) belongs to,")
        case .wait(let pod):
            guard isLast else { return nil }
            // One that does not end keeps its network: the new one's failure says so.
            if named == nil { return try make(id) }
            throw SandboxError.wrongState("pod \(pod), which container \(id) belongs to, is not ready")
        }
    }

    private func make(_ pod: String) throws -> Claim {
        let (pod, directory, lock) = try create(pod)
        do {
            // Written down first: so what whoever makes it leaves is known when it dies at once, or can't write.
            return .new(id: pod, directory, lock: lock, try directory.listen(below: root, network: network))
        } catch {
            directory.sweep()
            throw error
        }
    }

    /// Makes a pod's directory. The command line's containers have names of their own beside those of pods: a pod whose first
    /// container is deleted keeps its name, and the next pod of that container gets another.
    private func create(_ pod: String) throws -> (id: String, StateDirectory, lock: SharedDescriptor) {
        let isCommandLines = directory == root && named == nil
        for number in 1... {
            let name = number == 1 ? pod : "\(pod)-\(number)"
            let state = StateDirectory(root: directory, id: name)
            do { return (name, state, try state.create()) } catch SandboxError.alreadyExists where isCommandLines {
                continue
            }
        }
        throw SandboxError.alreadyExists(pod)
    }
}
