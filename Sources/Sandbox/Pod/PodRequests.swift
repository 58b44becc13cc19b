import Glibc
import LinuxSystem
import OCISpec

/// The state of a process of a container, for engines.
package struct TaskStatus: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case creating
        case created
        case running
        case paused
        case stopped(ExitRecord)
    }

    package var state: State
    package var bundle: String
    package var pid: UInt32
    package var terminal: Bool
    package var streams: StreamNames
}

/// A container with what runs in it.
package struct ContainerSnapshot: Sendable, Equatable {
    package var id: String
    /// `created`, `running`, `paused` or `stopped`.
    package var state: String
    package var processes: [GuestProcess]
}

/// What an engine asks of a pod's containers while they run.
extension Pod {
    package func status(_ id: String, exec: String) throws -> TaskStatus {
        if exec.isEmpty, creations[id] != nil, containers[id] == nil {
            return TaskStatus(state: .creating, bundle: "", pid: 0, terminal: false, streams: StreamNames())
        }
        _ = try running()
        let container = try find(id)
        let process = try find(id, exec)
        let state: TaskStatus.State =
            switch process.phase {
            case .created: .created
            // The freezer stops every process of the container.
            case .running: container.first.phase == .paused ? .paused : .running
            case .paused: .paused
            case .stopped(let record): .stopped(record)
            }
        return TaskStatus(
            state: state, bundle: container.bundle, pid: container.pid(exec), terminal: process.terminal,
            streams: process.names)
    }

    /// Sends a signal. One that ends a process by default ends a creation.
    package func signal(_ id: String, exec: String, _ signal: UInt32, all: Bool) async throws {
        if exec.isEmpty, let creation = creations[id], containers[id] == nil {
            guard Self.isFatal(signal) else { throw SandboxError.wrongState("container \(id) is being created") }
            let name = signalName(Int32(bitPattern: signal))
            return cancelCreation(
                creation, .wrongState("container \(id) was killed by \(name) while it was being created"))
        }
        let pod = try running()
        let process = try find(id, exec)
        if case .stopped = process.phase {
            throw SandboxError.notFound("\(Self.name(id, exec)) is stopped: its process")
        }
        if process.process != nil, process.phase == .created {
            throw SandboxError.wrongState("\(Self.name(id, exec)) is not started")
        }
        if signal == UInt32(SIGKILL) { enforceKill(id, exec, process, pod) }
        do { try await withGuest(pod) { try await pod.agent.signal(id, exec: exec, signal, all: all) } } catch {
            throw await afterSignal(process, Self.name(id, exec), error, pod)
        }
    }

    private static func isFatal(_ signal: UInt32) -> Bool {
        [SIGKILL, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGABRT].contains(Int32(bitPattern: signal))
    }

    /// The error for a signal that could not be sent. A process has ended with its machine: an engine that kills one to delete
    /// it wants to hear that, and to see it stopped then. Not inlined: the compiler of Swift 6.3 crashes on it.
    @inline(never)
    private func afterSignal(
        _ process: ContainerProcess, _ name: String, _ error: any Error, _ pod: RunningPod
    ) async -> any Error {
        guard isConnectionLoss(error) else { return error }
        let cause = await pod.machine.cause(ofFailedRequest: error)
        logger.debug("\(name): signal: \(cause)")
        let exit = process.exit
        await waiting(atMost: .seconds(2)) { _ = await exit.value() }
        return SandboxError.notFound("\(name) ended with its machine: its process")
    }

    package func resize(_ id: String, exec: String, width: UInt32, height: UInt32) async throws {
        try await withRunning { pod in
            _ = try find(id, exec)
            try await pod.agent.resize(id, exec: exec, width: width, height: height)
        }
    }

    /// Gives the terminal of the pod's first container another size.
    package func resizeTerminal(width: UInt32, height: UInt32) async {
        do { try await resize(environment.id, exec: "", width: width, height: height) } catch {
            logger.debug("resize: \(error)")
        }
    }

    package func closeInput(_ id: String, exec: String) throws {
        _ = try running()
        // The end goes the way that the bytes go, behind the last of them.
        try find(id, exec).streams?.closeInput()
    }

    /// The container's processes, as the guest knows them.
    package func processes(_ id: String) async throws -> [GuestProcess] {
        try await withRunning { pod in
            _ = try find(id)
            return try await pod.agent.processes(id)
        }
    }

    /// All containers by their ids, with what runs in them.
    package func snapshot() async throws -> [ContainerSnapshot] {
        try await withRunning { pod in
            var result: [ContainerSnapshot] = []
            for id in containers.keys.sorted() {
                // One that is removed meanwhile has stopped.
                let state = containers[id]?.first.phase.name ?? "stopped"
                let processes = state == "stopped" ? [] : try await pod.agent.processes(id)
                result.append(ContainerSnapshot(id: id, state: state, processes: processes))
            }
            return result
        }
    }

    package func pause(_ id: String) async throws {
        try await withRunning { pod in
            let container = try find(id)
            if container.first.phase == .paused { throw SandboxError.wrongState("container \(id) is paused already") }
            guard container.first.phase == .running else {
                throw SandboxError.wrongState("container \(id) is \(container.first.phase.name), not running")
            }
            try await pod.agent.pause(id)
            if containers[id]?.first.phase == .running { containers[id]?.first.phase = .paused }
            environment.emit(.paused(container: id))
        }
    }

    package func resume(_ id: String) async throws {
        try await withRunning { pod in
            guard try find(id).first.phase == .paused else {
                throw SandboxError.wrongState("container \(id) is not paused")
            }
            try await pod.agent.resume(id)
            if containers[id]?.first.phase == .paused { containers[id]?.first.phase = .running }
            environment.emit(.resumed(container: id))
        }
    }

    /// Changes a container's limits; what `resources` leaves out stays as it is.
    package func update(_ id: String, _ resources: Linux.Resources) async throws {
        try await withRunning { pod in
            var resources = resources
            let policy = pod.configuration.spec
            try Unsupported.refuse(resources.unsupported(policy: policy))
            if policy.ineffectiveLimits == .warn { resources.removeIneffectiveLimits() }
            var limits = try find(id).limits
            limits.change(to: resources)
            try await makeRoom(for: limits, of: id, pod)
            // What the host limits is the machine that the pod was made with, and Kubernetes limits that itself. The host comes
            // first: it may have less to give.
            if let first = pod.plan.container, first.id == id, !PodRequest(first.spec).isKubernetes,
                let cgroup = pod.cgroup
            {
                let limits = HostCgroupLimits(cpu: resources.cpu)
                try await onThread("cgroup limits") { try limits.apply(to: cgroup.directories) }
            }
            try await pod.agent.update(id, resources)
            containers[id]?.limits = limits
            takeBackRoom(pod)
        }
    }

    package func statistics(_ id: String) async throws -> ContainerStatistics {
        try await withRunning { pod in
            _ = try find(id)
            return try await pod.agent.statistics(id)
        }
    }

    /// Emits an event when the guest's kernel has killed processes of a container because memory ran out: at most one a second.
    func watchOOM(of id: String, _ pod: RunningPod) {
        let (agent, emit) = (pod.agent, environment.emit)
        Task {
            var seen: UInt64 = 0
            var pace = Pace(burst: 1, perSecond: 1)
            // Ends with the container, or the connection.
            while let kills = try? await agent.waitForOOM(id, seen: seen), kills > seen {
                seen = kills
                emit(.outOfMemory(container: id))
                try? await Task.sleep(for: pace.take())
            }
        }
    }
}
