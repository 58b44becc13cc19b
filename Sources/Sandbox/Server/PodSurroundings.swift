import Glibc
import Logging
import SwiftProtobuf

/// What a pod's server has around it.
struct PodSurroundings: Sendable {
    let id: String
    let directory: StateDirectory
    /// Where an engine reaches the server, where that is not in the directory.
    var socket: String?
    var namespace = ""
    let configuration: Configuration
    /// The file that it was read from; nil: the standard one.
    var configurationFile: String?
    let logger: Logger
    /// Told of each event, in order.
    var tell: @Sendable (PodEvent) -> Void = { _ in }

    /// Writes down which processes the pod has, and what it has changed on the host.
    func record(
        _ processes: [(name: String, pid: Int32)], bundle: String, cgroups: [String] = [],
        network: SandboxPlan.Network = .new
    ) throws {
        var state = StateDirectory.State(id: id, bundle: bundle, socket: socket)
        state.processes = ([("server", getpid())] + processes).compactMap { .init(name: $0.0, pid: $0.1) }
        state.cgroups = cgroups
        state.network = StateDirectory.NetworkRecord(network)
        try directory.write(state)
    }

    /// The configuration as the engine's options and the bundle's annotations change it for one pod.
    func configuration(
        options: Google_Protobuf_Any, annotations: [String: String]
    ) throws -> Configuration {
        let file = try configuration.file(engineOptions: options.typeURL, options.value)
        // Read again only where something is to change.
        if file == nil, !annotations.keys.contains(where: { $0.hasPrefix(Configuration.annotationPrefix) }) {
            return configuration
        }
        return try Configuration.load(file: file ?? configurationFile, annotations: annotations)
    }
}
