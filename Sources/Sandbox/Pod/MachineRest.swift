import Hypervisor
import LinuxSystem

/// Has a pod's vCPUs stand still while all of its containers are paused and nobody asks anything of the guest; and watches the
/// agent while they run.
actor MachineRest {
    private let machine: any VirtualMachine
    private let startHeartbeat: @Sendable () async throws -> Heartbeat
    private var heartbeat: Heartbeat
    /// Requests that are under way.
    private var requests = 0
    private var isIdle = false
    private var isResting = false
    /// Between `stop` and `goOn`.
    private var isHeld = false
    private var hasEnded = false
    private let changes = OneAtATime()

    /// - Parameter startHeartbeat: connects to the agent.
    /// - Throws: when the agent does not take the connection.
    init(
        _ machine: any VirtualMachine, _ startHeartbeat: @Sendable @escaping () async throws -> Heartbeat
    ) async throws {
        self.machine = machine
        self.startHeartbeat = startHeartbeat
        heartbeat = try await startHeartbeat()
    }

    /// Something is asked of the guest: its vCPUs run from now on, until `finish`.
    func begin() async throws {
        requests += 1
        do { try await converge() } catch {
            requests -= 1
            throw error
        }
    }

    /// What `begin` began is over.
    ///
    /// - Parameter isIdle: whether all containers are paused now; nil: as before. It counts when the last request is over.
    func finish(isIdle: Bool? = nil) async {
        requests -= 1
        self.isIdle = isIdle ?? self.isIdle
        try? await converge()
    }

    /// Stops the vCPUs until `goOn`, whatever is asked of the guest meanwhile.
    func stop() async throws {
        isHeld = true
        try await changes.run { try await self.stopVCPUs() }
    }

    /// Has them go on, if `stop` has stopped them.
    func goOn() async throws {
        isHeld = false
        try await changes.run { try await self.resumeVCPUs() }
    }

    /// The pod is being ended: the vCPUs run, and nobody watches the agent.
    func end() async {
        hasEnded = true
        try? await changes.run { try await self.resumeVCPUs() }
        heartbeat.cancel()
    }

    private func converge() async throws {
        if !isIdle, !isResting { return }
        try await changes.run { try await self.change() }
    }

    private func change() async throws {
        if isHeld { return }
        if isIdle, requests == 0, !hasEnded { try await stopVCPUs() } else { try await resumeVCPUs() }
    }

    private func stopVCPUs() async throws {
        if isResting { return }
        heartbeat.cancel()
        let machine = machine
        try await onThread("pause machine") { try machine.pause() }
        isResting = true
    }

    private func resumeVCPUs() async throws {
        guard isResting else { return }
        let machine = machine
        try await onThread("resume machine") { try machine.resume() }
        isResting = false
        if !hasEnded { heartbeat = try await startHeartbeat() }
    }
}

extension Pod {
    /// Calls `body` while the vCPUs run.
    func withGuest<R>(_ pod: RunningPod, _ body: () async throws -> R) async throws -> R {
        try await pod.rest.begin()
        let result: Result<R, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        await pod.rest.finish(isIdle: isIdle)
        return try result.get()
    }

    /// Whether there are containers, and all of them are paused. One that is being killed ends, paused or not.
    private var isIdle: Bool {
        creations.isEmpty && !containers.isEmpty
            && containers.values.allSatisfy { $0.first.phase == .paused && !$0.first.isKilled }
    }
}
