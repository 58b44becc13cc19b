import OCISpec
import TTRPC
import TaskAPI

/// The pod by itself, as `SandboxAPIService` serves it: made without a container, ended whatever is in it.
extension PodTaskService {
    /// Makes a pod without a container.
    func createSandbox(_ request: SandboxAPICreateSandboxRequest) async throws {
        try await answering {
            guard case .empty = phase else { throw SandboxError.alreadyExists(request.sandboxID) }
            guard request.rootfs.isEmpty else { throw SandboxError.unsupported("rootfs mounts of a sandbox") }
            let configuration = try surroundings.configuration(
                options: request.options, annotations: request.annotations)
            let plan = try SandboxPlan(
                id: request.sandboxID, hostname: "",
                network: request.netnsPath.isEmpty ? .new : .existing(path: request.netnsPath), cgroup: "",
                sizing: Sizing(PodRequest(Spec()), nil, host: HostLimits(), configuration), configuration: configuration
            )
            isSandbox = true
            try await make(plan, configuration, bundle: request.bundlePath) { _ in }
        }
    }

    /// Reads the network once more, as engines set it up before the start; answers the pod's pid.
    func startSandbox(_ id: String) async throws -> UInt32 {
        let network = network
        return try await withPod { pod in
            try await network?.refresh()
            return pod.pid
        }
    }

    /// The pod's pid; nil when it is gone.
    var sandboxPID: UInt32? { if case .running = phase { taskPID } else { nil } }

    /// Suspends until the machine has ended.
    func waitForSandbox() async { if let machine { _ = await machine.end() } }

    /// Ends the pod; the server goes on to answer.
    func stopSandbox() async {
        guard case .running(let pod) = phase else { return }
        phase = .gone
        await pod.shutdown()
        await release()
    }
}
