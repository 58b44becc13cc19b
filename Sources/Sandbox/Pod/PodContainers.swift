import AgentAPI
import FoundationEssentials
import LinuxSystem
import OCISpec
import TTRPC

/// The life of a container and of the processes in it.
extension Pod {
    /// Makes a container up to the point before its program is executed.
    ///
    /// - Parameter root: the root file system's tree, where it is not at the path that the plan says.
    func create(_ plan: SandboxPlan.Container, bundle: String, names: StreamNames, root: SharedDescriptor? = nil)
        async throws
    {
        guard containers[plan.id] == nil else { throw SandboxError.alreadyExists(plan.id) }
        try refuseOthersProcesses(plan)
        var first = try ContainerProcess(terminal: plan.spec.process?.terminal ?? false, names: names)
        let engine = try EngineStreams(names, terminal: first.terminal, of: plan.id, in: context)
        do {
            let shared = try share(plan, root: root)
            for volume in plan.podVolumes { try await volumes.provide(volume) }
            let (streams, numbers) = try await open(engine)
            first.streams = streams
            let request = try AgentCreateContainerRequest.with {
                $0.containerID = plan.id
                $0.specJson = try Pod.json(plan.spec)
                $0.streams = numbers
                $0.storages = shared + plan.storages
            }
            _ = try await agent.createContainer(request, timeout: limits.request)
            logger.phase("container created")
        } catch {
            first.streams?.cancel()
            unshare(plan)
            throw error
        }
        let hooks = HostHooks(plan, bundle: bundle, pid: pid, logger: logger)
        containers[plan.id] = Container(id: plan.id, bundle: bundle, plan: plan, hooks: hooks, first: first)
        do { try await hooks.beforeCreation() } catch {
            _ = try? await remove(plan.id)
            throw error
        }
        context.tell(
            .created(container: plan.id, bundle: bundle, streams: names, terminal: first.terminal, pid: pid))
        watchMemory(of: plan.id)
        // Before it is started too: it can be killed then, and its machine can end.
        let created = first
        Task { await follow(plan.id, "", created) }
    }

    /// Executes a created process's program: the container's first one's, or an exec's.
    func start(_ id: String, exec: String) async throws {
        let container = try find(id)
        var process = try find(id, exec)
        guard process.phase == .created else {
            throw SandboxError.wrongState("\(Self.name(id, exec)) is \(process.phase.name), not created")
        }
        logger.debug("\(Self.name(id, exec)): start")
        let over = try Promise<Void>()
        defer { over.settle(()) }
        if exec.isEmpty { containers[id]?.start = over }
        if let program = process.process {
            guard container.first.phase == .running else {
                throw SandboxError.wrongState("container \(id) is \(container.first.phase.name), not running")
            }
            let engine = try EngineStreams(process.names, terminal: process.terminal, of: id, in: context)
            let (streams, numbers) = try await open(engine)
            process.streams = streams
            do {
                let request = try AgentExecProcessRequest.with {
                    $0.containerID = id
                    $0.execID = exec
                    $0.processJson = try Pod.json(program)
                    $0.streams = numbers
                }
                _ = try await agent.execProcess(request, timeout: limits.request)
            } catch {
                streams.cancel()
                throw error
            }
        } else {
            _ = try await agent.startContainer(.with { $0.containerID = id }, timeout: limits.request)
            logger.phase("container started")
        }
        process.phase = .running
        containers[id]?[exec] = process
        context.tell(
            exec.isEmpty ? .started(container: id, pid: pid) : .execStarted(container: id, exec: exec, pid: pid))
        if exec.isEmpty {
            await container.hooks.afterStart()
        } else {
            let started = process
            Task { await follow(id, exec, started) }
        }
    }

    /// Adds a further process, to be started later.
    func addExec(_ id: String, exec: String, _ program: Process, names: StreamNames) throws {
        let container = try find(id)
        guard !exec.isEmpty else { throw SandboxError.invalid("exec_id: empty") }
        guard container.execs[exec] == nil else { throw SandboxError.alreadyExists(Self.name(id, exec)) }
        if case .stopped = container.first.phase {
            throw SandboxError.wrongState("container \(id) is stopped, not running")
        }
        containers[id]?.execs[exec] = try ContainerProcess(terminal: program.terminal, names: names, process: program)
        context.tell(.execAdded(container: id, exec: exec))
    }

    /// Waits for a process's end and settles it: a container's first one's from its creation on, an exec's from its start on.
    private func follow(_ id: String, _ exec: String, _ process: ContainerProcess) async {
        let record: ExitRecord
        do {
            // Lasts as long as the process: it ends with the connection, which the heartbeat watches.
            let reply = try await agent.waitProcess(
                .with {
                    $0.containerID = id
                    $0.execID = exec
                }, timeout: TTRPCClient.noTimeout)
            if exec.isEmpty { logger.phase("container exited") }
            await process.streams?.finish(within: ProcessStreams.exitPatience)
            if exec.isEmpty, reply.oomKills > 0 {
                logger.error(
                    "container \(id): out of memory (OOM): the kernel killed \(reply.oomKills) of its processes")
                containers[id]?.noteOutOfMemory(logger)
            }
            record = ExitRecord(status: reply.exitStatus & 0xff, at: reply.exitedAt)
        } catch {
            let end = await machine.end()
            process.streams?.cancel()
            if exec.isEmpty {
                let reason = SandboxError.machineEnded(reason: end.description, console: machine.consoleTail)
                logger.error("container \(id): \(reason)")
            }
            record = ExitRecord(status: 255, at: wallClockNanoseconds())
        }
        if exec.isEmpty {
            // The end of a quick program may come to be known before its start is told.
            await containers[id]?.start?.value()
            // Engines want to hear of a container's further processes before they hear of its first one.
            await waitForExecs(of: id)
        }
        guard containers[id]?[exec] != nil else {
            // Removed before it was started: its end is no news.
            process.exit.settle(record)
            return
        }
        containers[id]?[exec]?.phase = .stopped(record)
        process.exit.settle(record)
        context.tell(.exited(container: id, exec: exec, pid: pid, record))
    }

    /// Waits until the execs of a container whose first process has ended have been told to have ended too: the agent ends them
    /// with it.
    private func waitForExecs(of id: String) async {
        let running = (containers[id]?.execs.values).map { Array($0) }?.filter { $0.phase == .running } ?? []
        if running.isEmpty { return }
        await waiting(atMost: .seconds(2)) { for exec in running { _ = await exec.exit.value() } }
    }

    func find(_ id: String) throws -> Container {
        guard let container = containers[id] else { throw SandboxError.notFound("container \(id)") }
        return container
    }

    /// A process of a container: its first one where `exec` is empty.
    func find(_ id: String, _ exec: String) throws -> ContainerProcess {
        guard let process = try find(id)[exec] else { throw SandboxError.notFound(Self.name(id, exec)) }
        return process
    }

    /// For messages.
    static func name(_ id: String, _ exec: String) -> String {
        exec.isEmpty ? "container \(id)" : "process \(exec) of container \(id)"
    }

    /// Forgets an exec that is not running.
    func removeExec(_ id: String, exec: String) async throws -> ContainerProcess {
        let process = try find(id, exec)
        if process.phase == .running { throw SandboxError.wrongState("\(Self.name(id, exec)) is running") }
        containers[id]?.execs[exec] = nil
        // Who waits for one that never started.
        process.exit.settle(ExitRecord(status: 255, at: wallClockNanoseconds()))
        await process.streams?.finish(within: ProcessStreams.removalPatience)
        process.streams?.cancel()
        return process
    }

    /// Forgets a container that is not running, and takes its shares away.
    func remove(_ id: String) async throws -> ContainerProcess {
        let container = try find(id)
        if container.first.phase == .running { throw SandboxError.wrongState("container \(id) is running") }
        containers[id] = nil
        for process in [container.first] + container.execs.values {
            // One that never started still holds its streams.
            if process.phase != .created { await process.streams?.finish(within: ProcessStreams.removalPatience) }
            process.streams?.cancel()
        }
        for exec in container.execs.values { exec.exit.settle(ExitRecord(status: 255, at: wallClockNanoseconds())) }
        do {
            _ = try await agent.removeContainer(.with { $0.containerID = id }, timeout: limits.request)
        } catch {
            // With the VM gone there is nothing left to remove.
            logger.debug("remove container \(id): \(error)")
        }
        unshare(container.plan)
        await container.hooks.afterRemoval()
        if case .stopped(let record) = container.first.phase {
            context.tell(.deleted(container: id, pid: pid, record))
        }
        return container.first
    }

    /// Hands a container's file trees to the file device; returns what the agent mounts.
    private func share(_ plan: SandboxPlan.Container, root: SharedDescriptor?) throws -> [AgentStorage] {
        try shares.add(plan, root: root)
    }

    private func unshare(_ plan: SandboxPlan.Container) { shares.remove(plan.id) }

    /// Connects a process's streams; the agent is told their numbers.
    private func open(_ engine: EngineStreams) async throws -> (ProcessStreams, AgentStreams) {
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
            input = try StreamRelay(name: "stdin", engine: stdin.descriptor, guest: guest, direction: .toGuest)
        }
        if let stdout = engine.stdout {
            let (number, guest) = try await connect()
            numbers.stdout = number
            outputs.append(
                try StreamRelay(name: "stdout", engine: stdout.descriptor, guest: guest, direction: .fromGuest))
        }
        if let stderr = engine.stderr {
            let (number, guest) = try await connect()
            numbers.stderr = number
            outputs.append(
                try StreamRelay(name: "stderr", engine: stderr.descriptor, guest: guest, direction: .fromGuest))
        }
        let streams = ProcessStreams(
            input: input, hold: engine.stdin?.hold, outputs: outputs, isPatient: engine.isPatient)
        return (streams, numbers)
    }
}
