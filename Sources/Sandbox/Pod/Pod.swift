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

    let machine: any VirtualMachine
    let link: AgentLink
    let agent: AgentServiceClient
    let limits: Limits
    private let logger: Logger
    private var containers: [String: Container] = [:]
    private var nextStream: UInt64 = 1
    private var heartbeat: Task<Void, Never>?

    private init(
        machine: any VirtualMachine, link: AgentLink, agent: AgentServiceClient, limits: Limits, logger: Logger
    ) {
        self.machine = machine
        self.link = link
        self.agent = agent
        self.limits = limits
        self.logger = logger
    }

    /// Brings a launched VM to the point where containers can be made. On failure the VM is gone.
    static func start(_ plan: SandboxPlan, on machine: any VirtualMachine, limits: Limits, logger: Logger) async throws
        -> Pod
    {
        let alive = try Promise<VMEnd>()
        let watcher = Task { alive.settle(await machine.end()) }
        defer { watcher.cancel() }
        do {
            let link = AgentLink(machine: machine)
            let agent = try await link.agent(within: limits.start) { alive.current == nil }
            logger.phase("agent connected")
            let pod = Pod(machine: machine, link: link, agent: agent, limits: limits, logger: logger)
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
        _ = try await agent.setClock(.with { $0.now = Pod.now() }, timeout: limits.request)
        _ = try await agent.createSandbox(
            .with {
                $0.sandboxID = plan.container.id
                $0.hostname = plan.hostname
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
        // A VM that dies takes the connection first; its processes' ends are known a moment later.
        if error is TTRPCError || error is SandboxError || error is DeviceError {
            try? await Task.sleep(for: .milliseconds(200))
        }
        machine.kill(.ended("start failed: \(error)"))
        let end = await machine.end()
        if case .ended = end { return error }
        return SandboxError.machineEnded(reason: end.description, console: machine.consoleTail)
    }

    /// Makes a container up to the point before its program is executed.
    func create(_ plan: SandboxPlan.Container, bundle: String, stdio: (stdin: String, stdout: String, stderr: String))
        async throws
    {
        guard containers[plan.id] == nil else { throw SandboxError.alreadyExists(plan.id) }
        let terminal = plan.spec.process?.terminal ?? false
        let engine = try EngineStreams(stdin: stdio.stdin, stdout: stdio.stdout, stderr: terminal ? "" : stdio.stderr)
        let (streams, numbers) = try await open(engine, of: plan.id)
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .withoutEscapingSlashes
            let request = try AgentCreateContainerRequest.with {
                $0.containerID = plan.id
                $0.specJson = try encoder.encode(plan.spec)
                $0.streams = numbers
                $0.storages = plan.storages
            }
            _ = try await agent.createContainer(request, timeout: limits.request)
            logger.phase("container created")
        } catch {
            streams.cancel()
            throw error
        }
        containers[plan.id] = Container(
            id: plan.id, bundle: bundle, terminal: terminal, stdio: stdio, plan: plan, streams: streams,
            exit: try Promise())
    }

    /// Connects a process's streams; the agent is told their numbers.
    private func open(_ engine: EngineStreams, of id: String) async throws -> (ProcessStreams, AgentStreams) {
        var numbers = AgentStreams()
        var input: StreamRelay?
        var outputs: [StreamRelay] = []
        func connect() async throws -> (UInt64, SharedDescriptor) {
            let number = nextStream
            nextStream += 1
            return (number, try await link.stream(number, deadline: limits.request))
        }
        if let stdin = engine.stdin {
            let (number, guest) = try await connect()
            numbers.stdin = number
            input = try StreamRelay(name: "stdin", engine: stdin, guest: guest, direction: .toGuest)
        }
        if let stdout = engine.stdout {
            let (number, guest) = try await connect()
            numbers.stdout = number
            outputs.append(try StreamRelay(name: "stdout", engine: stdout, guest: guest, direction: .fromGuest))
        }
        if let stderr = engine.stderr {
            let (number, guest) = try await connect()
            numbers.stderr = number
            outputs.append(try StreamRelay(name: "stderr", engine: stderr, guest: guest, direction: .fromGuest))
        }
        return (ProcessStreams(input: input, outputs: outputs), numbers)
    }

    /// Executes a created container's program.
    func start(_ id: String) async throws {
        var container = try find(id)
        guard container.phase == .created else {
            throw SandboxError.wrongState("container \(id) is \(container.phase.name), not created")
        }
        logger.debug("container \(id): start")
        _ = try await agent.startContainer(.with { $0.containerID = id }, timeout: limits.request)
        logger.phase("container started")
        container.phase = .running
        containers[id] = container
        Task { await follow(id, container) }
    }

    /// Waits for a running container's end and settles it.
    private func follow(_ id: String, _ container: Container) async {
        let record: ExitRecord
        do {
            // Lasts as long as the container: it ends with the connection, which the heartbeat watches.
            let reply = try await agent.waitProcess(.with { $0.containerID = id }, timeout: TTRPCClient.noTimeout)
            logger.phase("container exited")
            await container.streams.finish()
            if reply.oomKills > 0 {
                logger.error(
                    "container \(id): out of memory (OOM): the kernel killed \(reply.oomKills) of its processes")
            }
            record = ExitRecord(status: reply.exitStatus & 0xff, at: reply.exitedAt)
        } catch {
            let end = await machine.end()
            container.streams.cancel()
            logger.error(
                "container \(id): \(SandboxError.machineEnded(reason: end.description, console: machine.consoleTail))")
            record = ExitRecord(status: 255, at: Pod.now())
        }
        containers[id]?.phase = .stopped(record)
        container.exit.settle(record)
    }

    /// What to tell of a failed call to the agent: the VM's end, if that is what made it fail.
    func explain(_ error: any Error) async -> any Error {
        guard let lost = error as? TTRPCError, lost.code == .unavailable || lost.code == .cancelled else {
            return error
        }
        let machine = machine
        let end = try? await withThrowingTaskGroup(of: VMEnd?.self) { group in
            group.addTask { await machine.end() }
            group.addTask {
                try await Task.sleep(for: .seconds(2))
                machine.kill(.ended("the connection to the agent was lost"))
                return nil
            }
            defer { group.cancelAll() }
            return try await group.next() ?? nil
        }
        return SandboxError.machineEnded(
            reason: (end ?? nil)?.description ?? "the connection to the agent was lost", console: machine.consoleTail)
    }

    func find(_ id: String) throws -> Container {
        guard let container = containers[id] else { throw SandboxError.notFound("container \(id)") }
        return container
    }

    func signal(_ id: String, _ signal: UInt32, all: Bool) async throws {
        let container = try find(id)
        if case .stopped = container.phase {
            throw SandboxError.notFound("a process of container \(id), which is stopped,")
        }
        _ = try await agent.signalProcess(
            .with {
                $0.containerID = id
                $0.signal = signal
                $0.all = all
            }, timeout: limits.request)
    }

    func resize(_ id: String, width: UInt32, height: UInt32) async throws {
        _ = try find(id)
        _ = try await agent.resizePty(
            .with {
                $0.containerID = id
                $0.width = width
                $0.height = height
            }, timeout: limits.request)
    }

    func closeInput(_ id: String) async throws {
        try find(id).streams.closeInput()
        _ = try await agent.closeStdin(.with { $0.containerID = id }, timeout: limits.request)
    }

    func processes(_ id: String) async throws -> [UInt32] {
        _ = try find(id)
        return try await agent.listProcesses(.with { $0.containerID = id }, timeout: limits.request).pids
    }

    /// Forgets a container that is not running, and takes its shares away.
    func remove(_ id: String) async throws -> Container {
        let container = try find(id)
        if container.phase == .running { throw SandboxError.wrongState("container \(id) is running") }
        containers[id] = nil
        container.streams.cancel()
        do {
            _ = try await agent.removeContainer(.with { $0.containerID = id }, timeout: limits.request)
            for share in container.plan.shares { try machine.removeShare(name: share.name) }
        } catch {
            // With the VM gone there is nothing left to remove.
            logger.debug("remove container \(id): \(error)")
        }
        return container
    }

    /// Ends the pod: the guest syncs and powers off, or is ended when it does not. Returns when all is gone.
    func shutdown() async {
        heartbeat?.cancel()
        _ = try? await agent.destroySandbox(.init(), timeout: .seconds(2))
        let machine = machine
        let patience = Task {
            try await Task.sleep(for: .seconds(3))
            machine.kill(.ended("the guest did not power off"))
        }
        _ = await machine.end()
        patience.cancel()
        for container in containers.values { container.streams.cancel() }
    }

    /// Nanoseconds since the epoch.
    static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
