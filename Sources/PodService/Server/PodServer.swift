import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Sandbox
import TTRPC
import TaskAPI
import Telemetry

/// A pod's server process: owns the pod, and serves the Task service to whoever asks for it.
public enum PodServer {
    /// The descriptors that the process starts with, beside its standard ones.
    package enum Descriptor {
        /// Listens at the pod's socket.
        package static let listener: Int32 = 3
        /// A socket whose other end lives as long as the command that wants the pod.
        static let lifeline: Int32 = 4
        /// Holds the state directory's lock.
        package static let lock: Int32 = 5
        /// Listens for host processes.
        package static let processes: Int32 = 6
    }

    /// Serves commands until the pod is shut down; then the pod is gone, and its directory.
    ///
    /// - Parameter isDetached: whether the pod outlives the command that wanted it; otherwise the pod ends with the lifeline.
    public static func run(
        id: String, root: String, isDetached: Bool, configuration: Configuration, configurationFile: String?,
        logger: Logger
    ) async throws {
        logger.phase("server")
        ignoreSignals()
        MetricRegistry.shared.bootstrap()
        for descriptor in Descriptor.listener...Descriptor.processes { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        let directory = StateDirectory(root: root, id: id)
        let log = try EventLog()
        let environment = PodEnvironment(
            id: id, directory: directory, socket: directory.read()?.socket, configuration: configuration,
            configurationFile: configurationFile, logger: logger, emit: { log.note($0) })
        let pod = try Pod(environment)
        if isDetached {
            try environment.record()
            await pod.endUnlessUsed()
        } else {
            try startThread("lifeline") {
                var byte: UInt8 = 0
                while read(Descriptor.lifeline, &byte, 1) < 0 && errno == EINTR {}
                Task { await pod.end() }
            }
        }
        Task { await pod.watchBundles { ContainerRecords(root: root).remove($0) } }
        let handed = try handedProcesses()
        let traces = RequestTraces(environment)
        let inspection = InspectionAPIService(pod, environment, log, traces.collector, handed)
        try await serve(
            [.task(TaskAPIService(pod, environment, handed)), .inspection(inspection)] + TransferAPIService.all(pod),
            of: pod, environment, traces)
        directory.sweep()
        // The command may have been killed.
        if !isDetached { ContainerRecords(root: root).remove(ofPod: id) }
    }

    /// Serves containerd until the pod is shut down; then the pod is gone, and its directory.
    ///
    /// - Parameters:
    ///   - socket: the path at which the listening descriptor is bound.
    ///   - emit: takes each event, in order.
    package static func runShim(
        id: String, namespace: String, directory: StateDirectory, socket: String, configuration: Configuration,
        configurationFile: String?, logger: Logger, emit: @Sendable @escaping (PodEvent) -> Void
    ) async throws {
        ignoreSignals()
        MetricRegistry.shared.bootstrap()
        for descriptor in [Descriptor.listener, Descriptor.lock, Descriptor.processes] {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
        let log = try EventLog()
        let environment = PodEnvironment(
            id: id, directory: directory, socket: socket, namespace: namespace, configuration: configuration,
            configurationFile: configurationFile, logger: logger,
            emit: {
                log.note($0)
                emit($0)
            })
        try environment.record()
        let pod = try Pod(environment)
        await pod.endUnlessUsed()
        let handed = try handedProcesses()
        let traces = RequestTraces(environment)
        let task = TTRPCServiceDescription.task(TaskAPIService(pod, environment, handed))
        try await serve(
            [
                task, task.renamed("containerd.task.v3.Task"), .sandbox(SandboxAPIService(pod, environment)),
                .inspection(InspectionAPIService(pod, environment, log, traces.collector, handed)),
            ] + TransferAPIService.all(pod), of: pod, environment, traces)
        directory.sweep()
    }

    private static func handedProcesses() throws -> HandedProcesses {
        let handed = HandedProcesses()
        try handed.serve(listening: SharedDescriptor(OwnedDescriptor(owning: Descriptor.processes)))
        return handed
    }

    private static func ignoreSignals() {
        signal(SIGPIPE, SIG_IGN)
        // The terminal's other end closing is the relay's business.
        signal(SIGHUP, SIG_IGN)
    }

    private static func serve(
        _ services: [TTRPCServiceDescription], of pod: Pod, _ environment: PodEnvironment, _ traces: RequestTraces
    ) async throws {
        let server = TTRPCServer(services.map { $0.around(traces.around) })
        try await server.serve(listening: SharedDescriptor(OwnedDescriptor(owning: Descriptor.listener)))
        // Beside the first requests, which need not wait for it.
        let metrics = Task { await PodMetrics.serve(pod, environment) }
        await pod.finished.value()
        await server.stop(grace: .milliseconds(100))
        await metrics.value?.stop()
        await traces.finish()
    }
}
