import Glibc
import Hypervisor
import LinuxSystem
import Logging

/// What a pod needs from the process that serves it.
package struct PodEnvironment: Sendable {
    package let id: String
    let directory: StateDirectory
    /// Where an engine reaches the server, where that is not in the directory.
    let socket: String?
    /// The engine's namespace of containers (containerd's `default`, `k8s.io`); empty without one.
    package let namespace: String
    /// As it was loaded when the process started.
    package let configuration: Configuration
    /// The file that it was read from; nil: the standard one.
    package let configurationFile: String?
    package let logger: Logger
    /// A machine of the pool that this process has held ready; nil: none.
    private let heldMachine = ConnectedMachine.assigned
    /// Takes each event, in order.
    let emit: @Sendable (PodEvent) -> Void

    package init(
        id: String, directory: StateDirectory, socket: String? = nil, namespace: String = "",
        configuration: Configuration, configurationFile: String?, logger: Logger,
        emit: @Sendable @escaping (PodEvent) -> Void = { _ in }
    ) {
        self.id = id
        self.directory = directory
        self.socket = socket
        self.namespace = namespace
        self.configuration = configuration
        self.configurationFile = configurationFile
        self.logger = logger
        self.emit = emit
    }

    /// Where the pod's metrics can be read; nil: nowhere.
    package var metricsPath: String? { socket.map(StateDirectory.metricsPath) }

    /// The machine that this process has held ready for the pod; once.
    ///
    /// - Parameter wanted: the pod's plan; nil: it goes on from a checkpoint.
    /// - Returns: nil where there is none, or another one, which is ended.
    func readyMachine(for wanted: SandboxPlan?) -> ConnectedMachine? {
        guard let held = heldMachine, held.take() else { return nil }
        if let wanted, held.isLike(wanted) { return held }
        logger.info("the machine of the pool is not like the pod's, which gets another one")
        Task { await held.end() }
        return nil
    }

    /// Writes down which processes the pod has, and what it has changed on the host, for whoever clears up after a crash.
    package func record(
        processes: [(name: String, pid: Int32)] = [], bundle: String = "", cgroups: [String] = [],
        network: SandboxPlan.Network = .new, namespace: NamespaceIdentity? = nil, user: UInt32? = nil,
        template: String? = nil, isFromPool: Bool = false
    ) throws {
        var state = StateDirectory.State(id: id, bundle: bundle, socket: socket)
        state.processes = ([("server", getpid())] + processes).compactMap { .init(name: $0.0, pid: $0.1) }
        state.metrics = metricsPath
        state.cgroups = cgroups
        state.user = user
        state.template = template
        state.isFromPool = isFromPool
        state.network = StateDirectory.NetworkRecord(network)
        // What whoever made the directory has written down holds until the namespace is open.
        state.networkNamespace = namespace ?? directory.read()?.networkNamespace
        try directory.write(state)
    }
}
