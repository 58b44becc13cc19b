import AgentAPI
import FoundationEssentials
import LinuxSystem
import OCISpec
import TTRPC

/// What an engine asks of a pod's containers while they run.
extension Pod {
    func signal(_ id: String, exec: String, _ signal: UInt32, all: Bool) async throws {
        let process = try find(id, exec)
        if case .stopped = process.phase {
            throw SandboxError.notFound("\(Self.name(id, exec)) is stopped: its process")
        }
        if process.process != nil, process.phase == .created {
            throw SandboxError.wrongState("\(Self.name(id, exec)) is not started")
        }
        do {
            _ = try await agent.signalProcess(
                .with {
                    $0.containerID = id
                    $0.execID = exec
                    $0.signal = signal
                    $0.all = all
                }, timeout: limits.request)
        } catch {
            throw await afterSignal(process, Self.name(id, exec), error)
        }
    }

    /// What to tell of a signal that could not be sent. A process has ended with its machine: an engine that kills one to delete it
    /// wants to hear that, and to see it stopped then. Not inlined: the compiler of Swift 6.3 dies of it.
    @inline(never)
    private func afterSignal(_ process: ContainerProcess, _ name: String, _ error: any Error) async -> any Error {
        guard Self.isLoss(error) else { return error }
        let told = await explain(error)
        logger.debug("\(name): signal: \(told)")
        let exit = process.exit
        await waiting(atMost: .seconds(2)) { _ = await exit.value() }
        return SandboxError.notFound("\(name) ended with its machine: its process")
    }

    func resize(_ id: String, exec: String, width: UInt32, height: UInt32) async throws {
        _ = try find(id, exec)
        _ = try await agent.resizePty(
            .with {
                $0.containerID = id
                $0.execID = exec
                $0.width = width
                $0.height = height
            }, timeout: limits.request)
    }

    func closeInput(_ id: String, exec: String) throws {
        let process = try find(id, exec)
        // The end goes the way that the bytes go, behind the last of them.
        process.streams?.closeInput()
    }

    /// The container's processes, as the guest knows them. Not inlined: in a loop the compiler of Swift 6.3 dies of it.
    @inline(never)
    func processes(_ id: String) async throws -> [AgentListProcessesResponse.Process] {
        _ = try find(id)
        return try await agent.listProcesses(.with { $0.containerID = id }, timeout: limits.request).processes
    }

    func pause(_ id: String) async throws {
        let container = try find(id)
        guard container.first.phase == .running else {
            throw SandboxError.wrongState("container \(id) is \(container.first.phase.name), not running")
        }
        guard !container.isPaused else { throw SandboxError.wrongState("container \(id) is paused already") }
        _ = try await agent.pauseContainer(.with { $0.containerID = id }, timeout: limits.request)
        containers[id]?.isPaused = true
        context.tell(.paused(container: id))
    }

    func resume(_ id: String) async throws {
        guard try find(id).isPaused else { throw SandboxError.wrongState("container \(id) is not paused") }
        _ = try await agent.resumeContainer(.with { $0.containerID = id }, timeout: limits.request)
        containers[id]?.isPaused = false
        context.tell(.resumed(container: id))
    }

    /// Changes a container's limits; what `resources` leaves out stays as it is.
    func update(_ id: String, _ resources: Linux.Resources) async throws {
        _ = try find(id)
        _ = try await agent.updateContainer(
            .with {
                $0.containerID = id
                $0.resourcesJson = try Pod.json(resources)
            }, timeout: limits.request)
    }

    func stats(_ id: String) async throws -> AgentContainerStatsResponse {
        _ = try find(id)
        return try await agent.containerStats(.with { $0.containerID = id }, timeout: limits.request)
    }

    /// Tells each time that the kernel has killed a container's processes for want of memory.
    func watchMemory(of id: String) {
        let (agent, tell) = (agent, context.tell)
        Task {
            var seen: UInt64 = 0
            // Ends with the container, or the connection.
            while let reply = try? await agent.waitOOM(
                .with {
                    $0.containerID = id
                    $0.seen = seen
                }, timeout: TTRPCClient.noTimeout), reply.oomKills > seen
            {
                seen = reply.oomKills
                tell(.outOfMemory(container: id))
            }
        }
    }
}
