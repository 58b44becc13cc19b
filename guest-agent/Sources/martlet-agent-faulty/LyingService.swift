import AgentAPI
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import Synchronization
import TTRPC

/// What the agent does to a container in place of what the host asks for.
enum Lie: String {
    /// A signal is answered and not sent, and a process that has ended is not reported.
    case neverEnds = "never-ends"
    /// The container is reported to have ended at once, twice as often as it is asked, with numbers that there are not.
    case endsEarly = "ends-early"
    /// Lists are as long as a message may be, of names that a terminal acts on.
    case hugeLists = "huge-lists"
    /// Answers come too late.
    case late
    /// Errors claim that the connection is lost, and forge lines of a log.
    case forges
    /// The console has no end.
    case floods
}

/// The agent's service, but that it lies about containers that ask for it.
final class LyingService: AgentService {
    private let agent: any AgentService
    private let lies = Mutex<[String: Lie]>([:])

    init(_ agent: any AgentService) { self.agent = agent }

    private func lie(_ container: String) -> Lie? { lies.withLock { $0[container] } }

    private static let forged = "it went wrong\nmartlet: error: all is well\u{1b}[2J\u{9b}1m\u{202e}\u{2028}"

    private func delay(_ container: String) async throws {
        switch lie(container) {
        case .late: try await Task.sleep(for: .seconds(3600))
        case .forges: throw TTRPCError(.unavailable, Self.forged)
        default: break
        }
    }

    // MARK: Lies

    func createContainer(
        _ request: AgentCreateContainerRequest, context: TTRPCContext
    ) async throws -> AgentCreateContainerResponse {
        let spec = try? JSON.decode(Spec.self, from: Array(request.specJson), file: "config.json")
        let lie = spec.flatMap(fault).flatMap(Lie.init)
        lies.withLock { $0[request.containerID] = lie }
        return try await agent.createContainer(request, context: context)
    }

    func startContainer(
        _ request: AgentProcessRequest, context: TTRPCContext
    ) async throws -> AgentStartContainerResponse {
        if lie(request.containerID) == .floods {
            try startThread("flood") {
                while true { Console.write("flood \u{1b}[31m\(String(repeating: "x", count: 200))") }
            }
        }
        return try await agent.startContainer(request, context: context)
    }

    func removeContainer(_ request: AgentRemoveContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        if lie(request.containerID) == .late { try await delay(request.containerID) }
        return try await agent.removeContainer(request, context: context)
    }

    func signalProcess(_ request: AgentSignalProcessRequest, context: TTRPCContext) async throws -> AgentEmpty {
        if lie(request.containerID) == .neverEnds { return AgentEmpty() }
        return try await agent.signalProcess(request, context: context)
    }

    func waitProcess(_ request: AgentProcessRequest, context: TTRPCContext) async throws -> AgentWaitProcessResponse {
        switch lie(request.containerID) {
        case .endsEarly:
            return .with {
                ($0.exitStatus, $0.signal, $0.exitedAt, $0.oomKills) = (.max, .max, .max, .max)
            }
        case .neverEnds: try await Task.sleep(for: .seconds(3600))
        default: break
        }
        return try await agent.waitProcess(request, context: context)
    }

    func listProcesses(
        _ request: AgentListProcessesRequest, context: TTRPCContext
    ) async throws -> AgentListProcessesResponse {
        try await delay(request.containerID)
        let answer = try await agent.listProcesses(request, context: context)
        guard lie(request.containerID) == .hugeLists, let first = answer.processes.first else { return answer }
        return .with { answer in
            answer.processes = (0..<20_000).map { number in
                var process = first
                (process.pid, process.parent, process.age, process.cpuTime) = (.max, .max, UInt64(number), .max)
                process.command = "\(number) \(Self.forged)"
                process.terminal = Self.forged
                return process
            }
        }
    }

    func waitOOM(_ request: AgentWaitOOMRequest, context: TTRPCContext) async throws -> AgentWaitOOMResponse {
        guard lie(request.containerID) == .hugeLists else { return try await agent.waitOOM(request, context: context) }
        return .with { $0.oomKills = request.seen + 1 }
    }

    func containerStats(
        _ request: AgentContainerRequest, context: TTRPCContext
    ) async throws -> AgentContainerStatsResponse {
        try await delay(request.containerID)
        var answer = try await agent.containerStats(request, context: context)
        guard lie(request.containerID) == .hugeLists else { return answer }
        for key in answer.cpu.keys { answer.cpu[key] = .max }
        answer.hugePages = (0..<20_000).map { number in
            .with {
                $0.pageSize = "\(number)\(Self.forged)"
                ($0.current, $0.limit, $0.failures) = (.max, .max, .max)
            }
        }
        return answer
    }

    // MARK: As it is

    func createSandbox(
        _ request: AgentCreateSandboxRequest, context: TTRPCContext
    ) async throws -> AgentCreateSandboxResponse { try await agent.createSandbox(request, context: context) }

    func destroySandbox(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty {
        // Whoever lies about a container does not go either.
        if lies.withLock({ !$0.isEmpty }) { try await Task.sleep(for: .seconds(3600)) }
        return try await agent.destroySandbox(request, context: context)
    }

    func makeVolume(_ request: AgentMakeVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.makeVolume(request, context: context)
    }

    func writeVolume(_ request: AgentWriteVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.writeVolume(request, context: context)
    }

    func releaseDisk(_ request: AgentReleaseDiskRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.releaseDisk(request, context: context)
    }

    func execProcess(
        _ request: AgentExecProcessRequest, context: TTRPCContext
    ) async throws -> AgentStartContainerResponse { try await agent.execProcess(request, context: context) }

    func copyFiles(_ request: AgentCopyFilesRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await delay(request.containerID)
        return try await agent.copyFiles(request, context: context)
    }

    func mountShare(_ request: AgentMountShareRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await delay(request.containerID)
        return try await agent.mountShare(request, context: context)
    }

    func unmountShare(_ request: AgentUnmountShareRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await delay(request.containerID)
        return try await agent.unmountShare(request, context: context)
    }

    func resizePty(_ request: AgentResizePtyRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.resizePty(request, context: context)
    }

    func pauseContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.pauseContainer(request, context: context)
    }

    func resumeContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.resumeContainer(request, context: context)
    }

    func updateContainer(_ request: AgentUpdateContainerRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.updateContainer(request, context: context)
    }

    func updateNetwork(_ request: AgentUpdateNetworkRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.updateNetwork(request, context: context)
    }

    func updateResolvers(_ request: AgentUpdateResolversRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.updateResolvers(request, context: context)
    }

    func detachStreams(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.detachStreams(request, context: context)
    }

    func resumeSandbox(_ request: AgentResumeSandboxRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.resumeSandbox(request, context: context)
    }

    func guestDetails(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestDetailsResponse {
        try await agent.guestDetails(request, context: context)
    }

    func reclaimMemory(
        _ request: AgentReclaimMemoryRequest, context: TTRPCContext
    ) async throws -> AgentReclaimMemoryResponse {
        try await agent.reclaimMemory(request, context: context)
    }

    func freezeDisks(
        _ request: AgentFreezeDisksRequest, context: TTRPCContext
    ) async throws -> AgentFreezeDisksResponse {
        try await agent.freezeDisks(request, context: context)
    }

    func thawDisks(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentThawDisksResponse {
        try await agent.thawDisks(request, context: context)
    }

    func useProcessors(_ request: AgentUseProcessorsRequest, context: TTRPCContext) async throws -> AgentEmpty {
        try await agent.useProcessors(request, context: context)
    }

    func guestStats(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestStatsResponse {
        try await agent.guestStats(request, context: context)
    }
}
