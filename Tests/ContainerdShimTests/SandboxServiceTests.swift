import Glibc
import Logging
import TaskAPI
import Testing

@testable import PodService
@testable import Sandbox
@testable import TTRPC

/// What the Sandbox and Task services answer when there is no machine.
@Suite struct SandboxServiceTests {
    private let environment = PodEnvironment(
        id: "p", directory: StateDirectory(root: "/tmp/martlet-no-such-\(getpid())", id: "p"),
        configuration: Configuration(), configurationFile: nil, logger: Logger(label: "test"))

    private let context = TTRPCContext(service: "", method: "", metadata: TTRPCMetadata(), deadline: nil)

    @Test func aSandboxIsStartedAfterItsCreation() async throws {
        let service = SandboxAPIService(try Pod(environment), environment)
        let error = await #expect(throws: TTRPCError.self) {
            try await service.startSandbox(.with { $0.sandboxID = "p" }, context: context)
        }
        #expect(error?.code == .failedPrecondition && error?.message.contains("sandbox p is not created") == true)
    }

    @Test func theStatusSaysStateAndPidInItsInfoToo() async throws {
        let service = SandboxAPIService(try Pod(environment), environment)
        let status = try await service.sandboxStatus(.with { $0.sandboxID = "p" }, context: context)
        #expect(status.state == "SANDBOX_NOTREADY" && status.pid == 0)
        #expect(status.info == ["state": "SANDBOX_NOTREADY", "pid": "0"])
    }

    @Test func aSandboxThatDoesNotRunDoesNotAnswerAPing() async throws {
        let service = SandboxAPIService(try Pod(environment), environment)
        let error = await #expect(throws: TTRPCError.self) {
            try await service.pingSandbox(.with { $0.sandboxID = "p" }, context: context)
        }
        #expect(error?.code == .failedPrecondition && error?.message.contains("sandbox p") == true)
    }

    @Test func aSandboxThatDoesNotRunHasNoMetrics() async throws {
        let service = SandboxAPIService(try Pod(environment), environment)
        let error = await #expect(throws: TTRPCError.self) {
            try await service.sandboxMetrics(.with { $0.sandboxID = "p" }, context: context)
        }
        #expect(error?.code == .notFound && error?.message.contains("pod p") == true)
    }

    /// This process stands for those of a pod.
    @Test func metricsOfASandboxAreWhatItsProcessesUse() {
        let metrics = MetricsMetrics(HostUsage(of: [("server", getpid()), ("vmm", 0)]), guestMemory: 1 << 30)
        #expect(metrics.pids.current >= 1 && metrics.memory.usageLimit == 1 << 30)
        #expect(metrics.memory.usage > 1 << 20 && metrics.memory.usage < 1 << 36)
        #expect(metrics.memory.anon > 0 && metrics.memory.anon <= metrics.memory.usage)
        #expect(metrics.cpu.usageUsec > 0 && metrics.cpu.usageUsec == metrics.cpu.userUsec + metrics.cpu.systemUsec)
    }

    /// An empty pod answers all requests, ends at once, and makes no container afterwards.
    @Test func aPodThatHasEndedMakesNothing() async throws {
        let pod = try Pod(environment)
        let tasks = TaskAPIService(pod, environment, HandedProcesses())
        let unknown = await #expect(throws: TTRPCError.self) {
            try await tasks.kill(.with { $0.id = "c" }, context: context)
        }
        #expect(unknown?.code == .notFound)
        await pod.end()
        await pod.finished.value()
        let sandbox = SandboxAPIService(pod, environment)
        let refused = await #expect(throws: TTRPCError.self) {
            try await sandbox.startSandbox(.with { $0.sandboxID = "p" }, context: context)
        }
        #expect(refused?.code == .failedPrecondition && refused?.message.contains("sandbox p is ended") == true)
    }
}
