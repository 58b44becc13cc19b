import LinuxSystem
import SwiftProtobuf
import TTRPC
import TaskAPI

/// containerd's Sandbox service: the pod as a thing of its own, whose containers come by the Task service.
actor SandboxAPIService: SandboxService {
    private let pod: PodTaskService
    private var createdAt: Int64 = 0
    private var exitedAt: Int64 = 0

    init(_ pod: PodTaskService) { self.pod = pod }

    func createSandbox(
        _ request: SandboxAPICreateSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPICreateSandboxResponse {
        try await pod.createSandbox(request)
        createdAt = wallClockNanoseconds()
        return .init()
    }

    func startSandbox(
        _ request: SandboxAPIStartSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIStartSandboxResponse {
        let pid = try await pod.startSandbox(request.sandboxID)
        return .with {
            $0.pid = pid
            $0.createdAt = timestamp(createdAt)
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
        await pod.stopSandbox()
        ended()
        return .init()
    }

    func waitSandbox(
        _ request: SandboxAPIWaitSandboxRequest, context: TTRPCContext
    ) async throws -> SandboxAPIWaitSandboxResponse {
        await pod.waitForSandbox()
        ended()
        return .with { $0.exitedAt = timestamp(exitedAt) }
    }

    func sandboxStatus(
        _ request: SandboxAPISandboxStatusRequest, context: TTRPCContext
    ) async throws -> SandboxAPISandboxStatusResponse {
        let pid = await pod.sandboxPID
        return .with {
            $0.sandboxID = request.sandboxID
            $0.pid = pid ?? 0
            // The words of Kubernetes' CRI.
            $0.state = pid == nil ? "SANDBOX_NOTREADY" : "SANDBOX_READY"
            $0.createdAt = timestamp(createdAt)
            if exitedAt != 0 { $0.exitedAt = timestamp(exitedAt) }
        }
    }

    func pingSandbox(_ request: SandboxAPIPingRequest, context: TTRPCContext) async throws -> SandboxAPIPingResponse {
        .init()
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
        throw TTRPCError(.unimplemented, SandboxError.unsupported("metrics of a sandbox as a whole").description)
    }

    private func ended() { if exitedAt == 0 { exitedAt = wallClockNanoseconds() } }
}
