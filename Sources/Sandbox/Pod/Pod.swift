import AgentAPI
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import TTRPC
import VMMControl

/// A sandbox: one VM, its agent, and the containers in it.
actor Pod {
    /// The deadlines of the agent's calls.
    struct Limits: Sendable {
        var start: Duration
        var request: Duration
        var heartbeatInterval: Duration
        var heartbeatLimit: Duration
    }

    /// What the pod needs from its surroundings.
    struct Context: Sendable {
        var limits: Limits
        /// Bytes of a volume's content that are copied into the guest.
        var copyLimit: Int
        var logger: Logger
        /// A process of the host that lives in the pod's network namespace as long as the pod.
        var pid: UInt32
        /// The engine's name space of containers (containerd's `default`, `k8s.io`); empty without one.
        var namespace: String
        /// Told of each event, in order.
        var tell: @Sendable (PodEvent) -> Void
    }

    let machine: any VirtualMachine
    let agent: AgentServiceClient
    let link: AgentLink
    let context: Context
    let volumes: PodVolumes
    let shares: PodShares
    var containers: [String: Container] = [:]
    var nextStream: UInt64 = 1
    private var heartbeat: Task<Void, Never>?

    var limits: Limits { context.limits }
    var logger: Logger { context.logger }

    /// What engines take for the pid of each container's first process, which lives in the guest.
    nonisolated var pid: UInt32 { context.pid }

    private init(machine: any VirtualMachine, link: AgentLink, agent: AgentServiceClient, context: Context) {
        self.machine = machine
        self.link = link
        self.agent = agent
        self.context = context
        shares = PodShares(machine, logger: context.logger)
        volumes = PodVolumes(
            agent, limit: context.limits.request, copyLimit: context.copyLimit, logger: context.logger)
    }

    /// Brings a launched VM to the point where containers can be made. On failure the VM is gone.
    static func start(
        _ plan: SandboxPlan, on machine: any VirtualMachine, context: Context
    ) async throws -> Pod {
        let alive = try Promise<VMEnd>()
        let watcher = Task { alive.settle(await machine.end()) }
        defer { watcher.cancel() }
        do {
            let link = AgentLink(machine: machine)
            let agent = try await link.agent(within: context.limits.start) { alive.current == nil }
            context.logger.phase("agent connected")
            let pod = Pod(machine: machine, link: link, agent: agent, context: context)
            try await pod.prepare(plan)
            return pod
        } catch {
            throw await fate(of: machine, after: error)
        }
    }

    private func prepare(_ plan: SandboxPlan) async throws {
        var entropy = [UInt8](repeating: 0, count: 64)
        try check("getentropy", "", entropy.withUnsafeMutableBytes { getentropy($0.baseAddress, $0.count) })
        _ = try await agent.reseed(.with { $0.entropy = Data(entropy) }, timeout: limits.request)
        _ = try await agent.setClock(.with { $0.now = wallClockNanoseconds() }, timeout: limits.request)
        _ = try await agent.createSandbox(
            .with {
                $0.sandboxID = plan.id
                $0.hostname = plan.hostname
                $0.sharedMemoryBytes = plan.container?.sharedMemory ?? 0
            }, timeout: limits.request)
        let (agent, machine, limits) = (agent, machine, limits)
        heartbeat = Task {
            do {
                try await Heartbeat.watch(agent, interval: limits.heartbeatInterval, limit: limits.heartbeatLimit)
                machine.kill(.ended("the agent stopped answering for \(limits.heartbeatLimit)"))
            } catch {
                // The connection is lost: the VM has ended or is about to, which its driver tells; a VM that lives on
                // without its agent is of no use.
                try? await Task.sleep(for: .seconds(1))
                if !Task.isCancelled { machine.kill(.ended("the connection to the agent was lost: \(error)")) }
            }
        }
    }

    /// What to tell of a failed step: the VM's end, if that is what made it fail. The VM is gone afterwards.
    static func fate(of machine: any VirtualMachine, after error: any Error) async -> any Error {
        let isOfMachine = error is TTRPCError || error is SandboxError || error is DeviceError
        let patience: Duration = isLoss(error) ? lossPatience : .milliseconds(isOfMachine ? 200 : 0)
        let end = await end(of: machine, within: patience, otherwise: "start failed: \(error)")
        if case .ended = end { return error }
        return SandboxError.machineEnded(reason: end.description, console: machine.consoleTail)
    }

    /// What to tell of a failed request: the VM's end, if that is what made it fail.
    func explain(_ error: any Error) async -> any Error {
        guard Self.isLoss(error) else { return error }
        let end = await Self.end(
            of: machine, within: Self.lossPatience, otherwise: "a connection to the machine was lost: \(error)")
        return SandboxError.machineEnded(reason: end.description, console: machine.consoleTail)
    }

    /// A VM that dies takes its connections first; its processes' ends are known a moment later.
    private static let lossPatience = Duration.seconds(2)

    /// Whether the other end of a connection into the VM, or to one of its processes, has gone.
    static func isLoss(_ error: any Error) -> Bool {
        switch error {
        case let error as TTRPCError: error.code == .unavailable || error.code == .cancelled
        case let error as DeviceError: error == .closed
        default: false
        }
    }

    /// The VM's end; when it does not come by itself within `patience`, the VM is ended, for the reason `otherwise`.
    private static func end(
        of machine: any VirtualMachine, within patience: Duration, otherwise reason: String
    ) async -> VMEnd {
        let last = Task {
            try await Task.sleep(for: patience)
            machine.kill(.ended(reason))
        }
        defer { last.cancel() }
        return await machine.end()
    }

    /// Ends the pod: the guest syncs and powers off, or is ended when it does not. Returns when all is gone.
    func shutdown() async {
        heartbeat?.cancel()
        await volumes.end()
        _ = try? await agent.destroySandbox(.init(), timeout: .seconds(2))
        _ = await Self.end(of: machine, within: .seconds(3), otherwise: "the guest did not power off")
        for container in containers.values {
            container.first.streams?.cancel()
            for exec in container.execs.values { exec.streams?.cancel() }
        }
    }

    /// As the agent reads it.
    static func json(_ value: some Encodable) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        return try encoder.encode(value)
    }
}
