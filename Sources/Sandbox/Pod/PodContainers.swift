import Glibc
import Hypervisor
import LinuxSystem
import OCISpec
import TTRPC
import Telemetry

/// The life of a container and of the processes in it.
extension Pod {
    /// Executes a created process's program: the container's first one's, or an exec's.
    ///
    /// - Returns: the pid that engines take for it.
    package func start(_ id: String, exec: String) async throws -> UInt32 {
        try await withRunning { pod in
            // Engines add interfaces between a container's creation and its start.
            if exec.isEmpty { try await pod.network.refresh() }
            try await start(id, exec, pod)
            return containers[id]?.pid(exec) ?? 0
        }
    }

    private func start(_ id: String, _ exec: String, _ pod: RunningPod) async throws {
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
            guard [.created, .running].contains(container.first.phase) else {
                throw SandboxError.wrongState(
                    "container \(id) is \(container.first.phase.name), neither created nor running")
            }
            if let host = process.host {
                let cgroup = container.cgroup.directories
                try await onThread("container process") {
                    try host.enter(pod.network.namespace, user: pod.user.id)
                    try HostCgroup.move(host.pid, to: cgroup)
                }
                try watch(host, id, exec: exec)
            }
            startingProcesses += 1
            defer { startingProcesses -= 1 }
            let (streams, numbers) = try await openStreams(of: process, container: id, pod)
            (process.streams, process.source) = (streams, nil)
            let cgroup = process.cgroup
            do { try await pod.agent.exec(id, exec: exec, program, cgroup: cgroup, streams: numbers) } catch {
                streams.cancel()
                throw error
            }
        } else if container.isRestored {
            try await pod.agent.resume(id)
            logger.phase("container resumed")
        } else {
            try await pod.agent.startContainer(id)
            logger.phase("container started")
        }
        process.phase = .running
        containers[id]?[exec] = process
        let pid = container.pid(exec)
        environment.emit(
            exec.isEmpty ? .started(container: id, pid: pid) : .execStarted(container: id, exec: exec, pid: pid))
        if exec.isEmpty {
            do { try await container.hooks.afterStart() } catch {
                try? await pod.agent.signal(id, exec: "", UInt32(SIGKILL), all: true)
                throw error
            }
        } else {
            let started = process
            Task { await follow(id, exec, started, pod) }
        }
    }

    /// Adds a further process, to be started later.
    ///
    /// - Parameter cgroup: below the container's; empty: the container's own.
    package func addExec(
        _ id: String, exec: String, _ program: Process, cgroup: String = "", streams: StreamSource
    ) throws {
        let container = try find(id)
        guard !exec.isEmpty else { throw SandboxError.invalid("exec_id: empty") }
        guard container.execs[exec] == nil else { throw SandboxError.alreadyExists(Self.name(id, exec)) }
        if case .stopped = container.first.phase {
            throw SandboxError.wrongState("container \(id) is stopped, not running")
        }
        if case .running(let pod) = phase {
            try Unsupported.refuse(program.unsupported(policy: pod.configuration.spec))
        }
        containers[id]?.execs[exec] = try ContainerProcess(
            terminal: program.terminal, source: streams, host: streams.process, process: program, cgroup: cgroup)
        environment.emit(.execAdded(container: id, exec: exec))
    }

    /// Suspends until a process has ended.
    package func wait(_ id: String, exec: String) async throws -> ExitRecord { try await find(id, exec).exit.value() }

    // MARK: Exits

    /// Waits for a process's end and settles it: a container's first one's from its creation on, an exec's from its start on.
    func follow(_ id: String, _ exec: String, _ process: ContainerProcess, _ pod: RunningPod) async {
        let record = await exit(of: process, id, exec, pod)
        // The host may have given it up.
        if process.exit.current == nil { await settle(id, exec, process, record) }
    }

    private func settle(_ id: String, _ exec: String, _ process: ContainerProcess, _ record: ExitRecord) async {
        if exec.isEmpty {
            // The end of a quick program may come to be known before its start is reported.
            await containers[id]?.start?.value()
            // Engines want to hear of a container's further processes before they hear of its first one.
            await waitForExecs(of: id)
        }
        // Whoever sees that process end finds this one stopped.
        defer { process.host?.end(record.end) }
        guard let container = containers[id], container[exec] != nil else {
            // Removed before it was started: its end is no news.
            process.exit.settle(record)
            return
        }
        containers[id]?[exec]?.phase = .stopped(record)
        process.exit.settle(record)
        environment.emit(.exited(container: id, exec: exec, pid: container.pid(exec), record))
        // Nobody asks for an exec that a command has made: its process on the host tells how it ended.
        if !exec.isEmpty, process.host != nil { containers[id]?.execs[exec] = nil }
    }

    private func exit(
        of process: ContainerProcess, _ id: String, _ exec: String, _ pod: RunningPod
    ) async -> ExitRecord {
        do {
            let exit = try await pod.agent.waitForExit(id, exec: exec)
            if exec.isEmpty { logger.phase("container exited") }
            await process.streams?.finish(within: ProcessStreams.exitTimeout)
            if exec.isEmpty, exit.oomKills > 0 {
                logger.error(
                    "container \(id): out of memory (OOM): the kernel killed \(exit.oomKills) of its processes")
                containers[id]?.noteOutOfMemory(logger)
            }
            if exec.isEmpty { MetricFamily.containerEnds.count([exit.cause]) }
            return exit.record
        } catch {
            // Of an exec, and of a container that has been removed, it costs nobody else anything.
            if !isConnectionLoss(error), !exec.isEmpty || containers[id] == nil {
                logger.debug("\(Self.name(id, exec)): the agent does not say how it ended: \(error)")
                process.streams?.cancel()
                return ExitRecord(status: 255, at: wallClockNanoseconds())
            }
            let end = await pod.machine.end(
                within: .seconds(2), otherwise: "the agent does not say how container \(id) ended: \(error)")
            process.streams?.cancel()
            // What was to be killed has been.
            let isKilled = containers[id]?[exec]?.isKilled == true
            if exec.isEmpty {
                let reason = SandboxError.machineEnded(reason: end.description, console: pod.machine.consoleTail)
                logger.log(level: isKilled ? .info : .error, "container \(id): \(reason)")
                MetricFamily.containerEnds.count([isKilled ? "signal" : "machine"])
            }
            return isKilled ? .killed : ExitRecord(status: 255, at: wallClockNanoseconds())
        }
    }

    /// Sees to it that a process that is killed is over after some time, whatever the agent says: a first process with its machine,
    /// another one for the host's part.
    func enforceKill(_ id: String, _ exec: String, _ process: ContainerProcess, _ pod: RunningPod) {
        guard containers[id]?[exec]?.isKilled == false else { return }
        containers[id]?[exec]?.isKilled = true
        let limit = pod.configuration.agent.killTimeout
        Task {
            guard await !isSettled(process.exit, within: limit) else { return }
            let reason = "\(Self.name(id, exec)) did not end within \(limit) of SIGKILL"
            logger.error("\(reason)")
            if exec.isEmpty { return pod.machine.kill(.ended(reason)) }
            process.streams?.cancel()
            if process.exit.current == nil { await settle(id, exec, process, .killed) }
        }
    }

    /// Waits for an exit. Counts ticks of this process: in a host that stalls nobody is blamed.
    private func isSettled(_ exit: Promise<ExitRecord>, within limit: Duration) async -> Bool {
        let tick = Duration.milliseconds(250)
        var waited = Duration.zero
        while waited < limit, exit.current == nil {
            try? await Task.sleep(for: tick)
            waited += tick
        }
        return exit.current != nil
    }

    /// Waits until the execs of a container whose first process has ended have been told to have ended too: the agent ends them
    /// with it.
    private func waitForExecs(of id: String) async {
        let running = (containers[id]?.execs.values).map { Array($0) }?.filter { $0.phase == .running } ?? []
        if running.isEmpty { return }
        await waiting(atMost: .seconds(2)) { for exec in running { _ = await exec.exit.value() } }
    }

    func find(_ id: String) throws -> Container {
        if creations[id] != nil, containers[id] == nil {
            throw SandboxError.wrongState("container \(id) is being created")
        }
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

    // MARK: Removal

    /// Forgets an exec that is not running, or a container (`exec` is empty) that is not. One that is being created is not
    /// created then.
    ///
    /// - Returns: the process on the host, and how the process ended; nil for one that never ran.
    package func delete(_ id: String, exec: String) async throws -> (pid: UInt32, end: ExitRecord?) {
        if exec.isEmpty, let creation = creations[id] {
            cancelCreation(creation, .wrongState("container \(id) was deleted while it was being created"))
            await waiting(atMost: environment.configuration.agent.killTimeout) { await creation.ended() }
            return (0, nil)
        }
        return try await withRunning { _ in
            let pid = containers[id]?.pid(exec) ?? 0
            let process = try await exec.isEmpty ? remove(id) : removeExec(id, exec: exec)
            if case .stopped(let record) = process.phase { return (pid, record) }
            return (pid, nil)
        }
    }

    private func removeExec(_ id: String, exec: String) async throws -> ContainerProcess {
        let process = try find(id, exec)
        if process.phase.isAlive { throw SandboxError.wrongState("\(Self.name(id, exec)) is running") }
        containers[id]?.execs[exec] = nil
        // Who waits for one that never started.
        process.exit.settle(ExitRecord(status: 255, at: wallClockNanoseconds()))
        process.host?.end(.exited(255))
        await process.streams?.finish(within: ProcessStreams.removalTimeout)
        process.streams?.cancel()
        return process
    }

    /// Forgets a container that is not running, and takes its shares away.
    @discardableResult
    func remove(_ id: String) async throws -> ContainerProcess {
        let pod = try running()
        let container = try find(id)
        if container.first.phase.isAlive {
            throw SandboxError.wrongState("container \(id) is \(container.first.phase.name)")
        }
        containers[id] = nil
        for process in container.processes {
            // One that never started still holds its streams.
            if process.phase != .created { await process.streams?.finish(within: ProcessStreams.removalTimeout) }
            process.streams?.cancel()
        }
        for exec in container.execs.values {
            exec.exit.settle(ExitRecord(status: 255, at: wallClockNanoseconds()))
            exec.host?.end(.exited(255))
        }
        await removeFromGuest(id, pod)
        await removeDisks(of: id, pod)
        await pod.shares.remove(id)
        await pod.forgetTargets(of: id)
        await removeCgroup(container.cgroup)
        takeBackRoom(pod)
        await container.hooks.afterRemoval()
        if case .stopped(let record) = container.first.phase {
            environment.emit(.deleted(container: id, pid: container.pid(), record))
        }
        return container.first
    }

    /// Has the agent take a container away. A machine whose agent does not is ended; with the machine gone there is nothing left to
    /// remove.
    func removeFromGuest(_ id: String, _ pod: RunningPod) async {
        await waiting(atMost: .seconds(2)) { await pod.propagation.forget(id) }
        let limit = pod.configuration.agent.killTimeout
        do { try await pod.agent.removeContainer(id, timeout: limit) } catch {
            logger.debug("remove container \(id): \(error)")
            let isLate = (error as? TTRPCError)?.code == .deadlineExceeded
            if isLate { pod.machine.kill(.ended("the agent did not remove container \(id) within \(limit)")) }
        }
    }
}
