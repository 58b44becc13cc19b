import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

/// containerd's Sandbox service: the pod as a thing of its own, whose containers come by the Task service.
struct SandboxAPIService: SandboxService {
    private let pod: Pod
    private let environment: PodEnvironment

    init(_ pod: Pod, _ environment: PodEnvironment) {
        self.pod = pod
        self.environment = environment
    }

    func createSandbox(
        _ request: SandboxAPICreateSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPICreateSandboxResponse {
        try await answering {
            guard request.rootfs.isEmpty else { throw SandboxError.unsupported("rootfs mounts of a sandbox") }
            let configuration = try await environment.configuration(
                options: request.options, annotations: request.annotations)
            try await pod.createSandbox(
                SandboxRequest(
                    id: request.sandboxID, bundle: request.bundlePath,
                    network: request.netnsPath.isEmpty ? .new : .existing(path: request.netnsPath),
                    configuration: configuration))
            return .init()
        }
    }

    func startSandbox(
        _ request: SandboxAPIStartSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIStartSandboxResponse {
        try await answering {
            let status = try await pod.startSandbox()
            return .with {
                $0.pid = status.pid
                $0.createdAt = timestamp(status.createdAt)
            }
        }
    }

    func platform(
        _ request: SandboxAPIPlatformRequest, context: TTRPCContext
    ) async throws -> SandboxAPIPlatformResponse {
        .with {
            $0.platform = .with {
                $0.os = "linux"
                $0.architecture = "amd64"
            }
        }
    }

    func stopSandbox(
        _ request: SandboxAPIStopSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIStopSandboxResponse {
        await pod.stop()
        return .init()
    }

    func waitSandbox(
        _ request: SandboxAPIWaitSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIWaitSandboxResponse {
        let status = await pod.waitForEnd()
        return .with { $0.exitedAt = timestamp(status.endedAt) }
    }

    func sandboxStatus(
        _ request: SandboxAPISandboxStatusRequest, context: TTRPCContext
    ) async throws -> SandboxAPISandboxStatusResponse {
        let status = await pod.sandboxStatus
        return .with {
            $0.sandboxID = request.sandboxID
            $0.pid = status.pid
            // The terms of Kubernetes' CRI.
            $0.state = status.isRunning ? "SANDBOX_READY" : "SANDBOX_NOTREADY"
            // containerd's clients read both here.
            $0.info = ["state": $0.state, "pid": "\(status.pid)"]
            $0.createdAt = timestamp(status.createdAt)
            if status.endedAt != 0 { $0.exitedAt = timestamp(status.endedAt) }
        }
    }

    func pingSandbox(_ request: SandboxAPIPingRequest, context: TTRPCContext) async throws -> SandboxAPIPingResponse {
        try await answering {
            guard await pod.sandboxStatus.isRunning else {
                throw SandboxError.wrongState("sandbox \(environment.id) does not run")
            }
            return .init()
        }
    }

    func shutdownSandbox(
        _ request: SandboxAPIShutdownSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIShutdownSandboxResponse {
        await pod.end()
        return .init()
    }

    func sandboxMetrics(
        _ request: SandboxAPISandboxMetricsRequest, context: TTRPCContext
    ) async throws -> SandboxAPISandboxMetricsResponse {
        try await answering {
            let (use, guestMemory) = try await pod.hostUsage()
            let metrics = MetricsMetrics(use, guestMemory: guestMemory)
            return try .with {
                $0.metrics = try .with {
                    $0.timestamp = timestamp(wallClockNanoseconds())
                    $0.id = environment.id
                    $0.data = try .with {
                        $0.typeURL = MetricsMetrics.protoMessageName
                        $0.value = try metrics.serializedBytes()
                    }
                }
            }
        }
    }
}
