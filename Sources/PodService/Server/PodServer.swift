import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Sandbox
import TTRPC
import TaskAPI

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
        static let stdin: Int32 = 6
        static let stdout: Int32 = 7
        static let stderr: Int32 = 8
    }

    /// Serves a command until the pod is shut down or the lifeline breaks; then the pod is gone, and its directory.
    public static func run(
        id: String, root: String, configuration: Configuration, configurationFile: String?, logger: Logger
    ) async throws {
        logger.phase("server")
        ignoreSignals()
        for descriptor in Descriptor.listener...Descriptor.stderr { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        let directory = StateDirectory(root: root, id: id)
        let environment = PodEnvironment(
            id: id, directory: directory, socket: directory.read()?.socket, configuration: configuration,
            configurationFile: configurationFile,
            logger: logger)
        let pod = try Pod(environment)
        // A pseudo-terminal that the command made for an engine: as this session's controlling terminal it tells when the
        // engine resizes it. One that a person sits at belongs to another session, whose command follows its size.
        if martlet_ioctl_int(Descriptor.stdin, UInt(TIOCSCTTY), 0) == 0 {
            let resizes = try SignalQueue([SIGWINCH])
            Task {
                for await _ in resizes.stream {
                    guard let size = Terminal.size(of: Descriptor.stdin) else { continue }
                    await pod.resizeTerminal(width: size.width, height: size.height)
                }
            }
        }
        try startThread("lifeline") {
            var byte: UInt8 = 0
            while read(Descriptor.lifeline, &byte, 1) < 0 && errno == EINTR {}
            Task { await pod.end() }
        }
        try await serve(
            [.task(TaskAPIService(pod, environment)), .inspection(InspectionAPIService(pod))], until: pod.finished)
        directory.sweep()
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
        for descriptor in [Descriptor.listener, Descriptor.lock] { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        let environment = PodEnvironment(
            id: id, directory: directory, socket: socket, namespace: namespace, configuration: configuration,
            configurationFile: configurationFile, logger: logger, emit: emit)
        try environment.record()
        let pod = try Pod(environment)
        await pod.endUnlessUsed()
        let task = TTRPCServiceDescription.task(TaskAPIService(pod, environment))
        try await serve(
            [
                task, task.renamed("containerd.task.v3.Task"), .sandbox(SandboxAPIService(pod, environment)),
                .inspection(InspectionAPIService(pod)),
            ], until: pod.finished)
        directory.sweep()
    }

    private static func ignoreSignals() {
        signal(SIGPIPE, SIG_IGN)
        // The terminal's other end closing is the relay's business.
        signal(SIGHUP, SIG_IGN)
    }

    private static func serve(_ services: [TTRPCServiceDescription], until finished: Promise<Void>) async throws {
        let server = TTRPCServer(services)
        try await server.serve(listening: SharedDescriptor(OwnedDescriptor(owning: Descriptor.listener)))
        await finished.value()
        await server.stop(grace: .milliseconds(100))
    }
}
