import Glibc
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

extension Runtime {
    /// How long a container may take to end when it is killed.
    private static let killTimeout: Duration = .seconds(10)
    /// How long a pod may take to end with its last container.
    private static let podTimeout: Duration = .seconds(20)

    /// `delete`: takes away a container that has stopped or was never started; with its last one the pod.
    ///
    /// - Parameter isForced: whether one that runs is killed first. No error then where there is none.
    public func delete(_ id: String, isForced: Bool) async throws {
        try await asking {
            guard records.isTaken(id) else {
                if isForced { return }
                throw SandboxError.notFound("container \(id)")
            }
            guard let record = records.read(id) else {
                // Its creation has not come far, or has died.
                guard isForced || records.isAbandoned(id) else {
                    throw SandboxError.wrongState("container \(id) is being created")
                }
                return try forgetUnfinished(id)
            }
            let container = try await open(id)
            if let task = container.task { try await delete(container, task, isForced) }
            if record.podDirectory.isAbandoned(within: .seconds(2)) { record.podDirectory.sweep() }
            records.remove(id)
        }
    }

    private func delete(_ container: OpenContainer, _ task: TaskServiceClient, _ isForced: Bool) async throws {
        let id = container.id
        let (status, pid) = try await container.status()
        switch status {
        case .stopped: break
        case .running, .paused:
            // A container whose process on the host was killed is about to stop: to the engine it has.
            guard isForced || pid > 0 && !ProcessStatus.isRunning(pid) else {
                throw SandboxError.wrongState(
                    "cannot delete container \(id) that is not stopped: \(status.rawValue)")
            }
            try await end(container, task)
        case .created: try await end(container, task)
        case .creating where isForced: break
        case .creating: throw SandboxError.wrongState("cannot delete container \(id) that is being created")
        }
        do throws(TTRPCError) {
            _ = try await task.delete(.with { $0.id = id }, timeout: Runtime.requestTimeout)
        } catch {
            // The pod has ended meanwhile.
            guard [.notFound, .unavailable].contains(error.code) else { throw error }
        }
        // Ends a pod without containers.
        _ = try? await task.shutdown(.init(), timeout: Self.podTimeout)
        await waitForPod(container)
    }

    private func end(_ container: OpenContainer, _ task: TaskServiceClient) async throws {
        try? await container.kill(SIGKILL, all: true)
        let id = container.id
        _ = try? await task.wait(.with { $0.id = id }, timeout: Self.killTimeout)
    }

    /// Returns when the server has ended, or has other containers.
    private func waitForPod(_ container: OpenContainer) async {
        let end = ContinuousClock.now + Self.podTimeout
        while container.record.podDirectory.exists, ContinuousClock.now < end {
            if let pod = try? await container.inspection?.processes(.init(), timeout: .seconds(5)),
                !pod.containers.isEmpty
            {
                return
            }
            if container.record.podDirectory.isAbandoned() { return }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
