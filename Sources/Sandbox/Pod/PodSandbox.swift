import LinuxSystem
import OCISpec

/// A pod that its engine makes without a container.
package struct SandboxRequest: Sendable {
    package var id: String
    /// Written down in the pod's state.
    package var bundle: String
    package var network: SandboxPlan.Network
    /// As the engine's options and annotations have changed it for this pod.
    package var configuration: Configuration

    package init(id: String, bundle: String, network: SandboxPlan.Network, configuration: Configuration) {
        self.id = id
        self.bundle = bundle
        self.network = network
        self.configuration = configuration
    }
}

/// What a pod is, for engines that know of pods.
package struct SandboxStatus: Sendable, Equatable {
    package var isRunning: Bool
    /// Of the pod's process on the host; 0 when the pod does not run.
    package var pid: UInt32
    /// Nanoseconds since the epoch; 0: not yet.
    package var createdAt: Int64
    package var endedAt: Int64
}

/// The pod by itself: made without a container, ended whatever is in it.
extension Pod {
    /// Makes the pod.
    package func createSandbox(_ request: SandboxRequest) async throws {
        guard case .empty = phase else { throw SandboxError.alreadyExists(request.id) }
        isSandbox = true
        do {
            let pod = try await launch(request.configuration, bundle: request.bundle, rootfs: nil) {
                try SandboxPlan(
                    id: request.id, hostname: "", network: request.network,
                    cgroup: HostCgroupPath.of(nil, id: request.id, request.configuration),
                    sizing: Sizing(PodRequest(Spec()), nil, host: HostLimits(), request.configuration),
                    configuration: request.configuration)
            }
            try await startSandboxProcess(pod)
            try await attachNetwork(pod)
        } catch {
            await stop()
            endUnlessUsed()
            throw error
        }
    }

    /// Starts the process that engines take for the pod. The machine ends with it: whoever looked for the pod by its pid would
    /// find nothing, or one day another process.
    private func startSandboxProcess(_ pod: RunningPod) async throws {
        let id = environment.id
        let process = try await onThread("sandbox process") {
            let process = try HostProcess.start(container: "sandbox", pod: id)
            try process.enter(pod.network.namespace, user: pod.user.id)
            return process
        }
        sandboxProcess = process
        try process.watch { event in
            if event == .ended { pod.machine.kill(.ended("the pod's process on the host was killed")) }
        }
    }

    /// Reads the network once more, as engines set it up before the start.
    ///
    /// - Returns: the pod's pid, and when the pod was created.
    /// - Throws: `SandboxError.wrongState` before `createSandbox`, and when the pod has ended.
    package func startSandbox() async throws -> SandboxStatus {
        guard case .running(let pod) = phase else {
            throw SandboxError.wrongState("sandbox \(environment.id) is \(phase.name)")
        }
        do { try await pod.network.refresh() } catch { throw await pod.machine.cause(ofFailedRequest: error) }
        return sandboxStatus
    }

    package var sandboxStatus: SandboxStatus {
        guard case .running = phase else {
            return SandboxStatus(isRunning: false, pid: 0, createdAt: createdAt, endedAt: endedAt)
        }
        return SandboxStatus(
            isRunning: endedAt == 0, pid: UInt32(bitPattern: sandboxProcess?.pid ?? 0), createdAt: createdAt,
            endedAt: endedAt)
    }

    /// Suspends until the machine has ended.
    package func waitForEnd() async -> SandboxStatus {
        if let machine {
            _ = await machine.end()
            if endedAt == 0 { endedAt = wallClockNanoseconds() }
        }
        return sandboxStatus
    }

    /// Gives the guest the network that the pod has on the host. What fails of the machine is told as its end.
    func attachNetwork(_ pod: RunningPod) async throws {
        do { try await pod.network.attach(to: pod) } catch {
            throw await pod.machine.cause(ofFailedRequest: error)
        }
    }
}
