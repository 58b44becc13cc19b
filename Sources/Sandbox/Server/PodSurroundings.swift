import Glibc
import Logging
import TaskAPI

/// What a pod's server has around it.
struct PodSurroundings: Sendable {
    let id: String
    let directory: StateDirectory
    /// Where an engine reaches the server, where that is not in the directory.
    var socket: String?
    var namespace = ""
    let configuration: Configuration
    let logger: Logger
    /// Told of each event, in order.
    var tell: @Sendable (PodEvent) -> Void = { _ in }

    /// Writes down which processes the pod has.
    func record(_ processes: [(name: String, pid: Int32)], bundle: String, cgroups: [String] = []) throws {
        var state = StateDirectory.State(id: id, bundle: bundle, socket: socket)
        state.processes = ([("server", getpid())] + processes).compactMap { .init(name: $0.0, pid: $0.1) }
        state.cgroups = cgroups
        try directory.write(state)
    }

    /// The configuration as the engine's options change it for one container.
    func configuration(for request: TaskCreateTaskRequest) throws -> Configuration {
        try configuration.applying(engineOptions: request.options.typeURL, request.options.value)
    }
}
