import AgentAPI
import Glibc
import Hypervisor
import LinuxSystem
import Telemetry
import VMMControl

/// Memory that goes back to the host when a pod is idle: the guest drops page cache, and what is free then is taken out of use for a
/// moment, which gives single pages back too, where the guest reports whole blocks by itself.
struct MemoryReclaim: Sendable {
    let machine: any VirtualMachine
    let agent: GuestAgent
    /// Of the machine, from the start on and at most, bytes.
    let memory: UInt64
    let mostMemory: UInt64
    let settings: Configuration.Memory

    init(_ pod: RunningPod) {
        machine = pod.machine
        agent = pod.agent
        memory = UInt64(pod.plan.machine.memoryMiB) << 20
        mostMemory = memory + UInt64(pod.plan.machine.hotplugMiB) << 20
        settings = pod.configuration.memory
    }

    /// How often the use of CPUs is looked at.
    var interval: Duration { min(max(settings.idle / 4, .milliseconds(250)), .seconds(15)) }

    /// Free memory that the guest keeps, bytes: what it needs meanwhile must not wait for the balloon.
    var reserve: UInt64 { max(32 << 20, memory / 16) }
    /// Less than that is not worth the work.
    static let least: UInt64 = 16 << 20

    /// Has the guest give back what it can do without.
    func run() async throws {
        let reply = try await agent.reclaimMemory(cacheFloor: UInt64(settings.floorMiB) << 20)
        MetricFamily.memoryReclaims.count()
        MetricFamily.reclaimedCache.count(by: min(reply.reclaimedBytes, mostMemory))
        let free = min(reply.freeBytes, mostMemory)
        guard free > reserve + Self.least else { return }
        // QEMU's balloon takes no more than the machine has begun with; the guest reports the rest in whole blocks.
        let (machine, bytes) = (machine, min(free - reserve, memory - reserve))
        try await onThread("balloon") { try Squeeze(machine: machine).run(bytes: bytes) }
    }
}

/// A balloon that is filled and emptied again. Its calls block.
private struct Squeeze {
    let machine: any VirtualMachine
    /// How long the guest may take to fill it, and not get any further with it.
    static let limit = Duration.seconds(20)
    static let stall = Duration.seconds(1)
    static let pause: UInt32 = 50_000

    /// - Parameter bytes: what the guest is asked for.
    func run(bytes: UInt64) throws {
        let filled = Result { try fill(bytes) }
        // Whatever has happened.
        try machine.setBalloon(bytes: 0)
        try filled.get()
    }

    private func fill(_ bytes: UInt64) throws {
        try machine.setBalloon(bytes: bytes)
        let begin = ContinuousClock.now
        var (size, since) = (UInt64(0), begin)
        while true {
            usleep(Self.pause)
            let now = ContinuousClock.now
            let current = try machine.balloon(timeout: .seconds(2)).size
            if current > size { (size, since) = (current, now) }
            if current >= bytes || now - since > Self.stall || now - begin > Self.limit { return }
        }
    }
}

extension Pod {
    /// Has the guest give memory back whenever the pod has been idle for a while, until the task is cancelled.
    ///
    /// - Returns: nil: that is not wanted.
    func watchForIdleness(_ pod: RunningPod) -> Task<Void, Never>? {
        guard pod.configuration.memory.reclaim else { return nil }
        let reclaim = MemoryReclaim(pod)
        return Task { [weak self] in
            var watch = IdleWatch(limit: reclaim.settings.idle.clampedNanoseconds)
            var isFirst = true
            while (try? await Task.sleep(for: reclaim.interval)) != nil {
                // A machine may have been saved while its balloon was full.
                if isFirst { try? await onThread("balloon") { try pod.machine.setBalloon(bytes: 0) } }
                isFirst = false
                guard let cpu = await self?.containersCPU(pod), watch.isDue(cpu: cpu, at: monotonicNanoseconds()) else {
                    continue
                }
                await self?.giveBackMemory(pod, reclaim)
            }
        }
    }

    /// What the containers have used of the CPUs so far, nanoseconds; nil where the guest does not tell, or stands still.
    private func containersCPU(_ pod: RunningPod) async -> UInt64? {
        guard pod.machine.state == .running, creations.isEmpty, !isBeingSaved else { return nil }
        let agent = GuestAgent(client: pod.agent.client, timeout: .seconds(2), names: pod.agent.names)
        var sum: UInt64 = 0
        for (id, container) in containers where !container.first.phase.isStopped {
            guard let statistics = try? await agent.statistics(id) else { return nil }
            sum &+= (statistics.cpu["usage_usec"] ?? 0) &* 1000
        }
        return sum
    }

    private func giveBackMemory(_ pod: RunningPod, _ reclaim: MemoryReclaim) async {
        guard pod.machine.state == .running, !isBeingSaved else { return }
        do {
            // Meanwhile the vCPUs do not stop because all containers are paused.
            try await withGuest(pod) { try await reclaim.run() }
        } catch { logger.debug("no memory was given back: \(error)") }
    }
}
