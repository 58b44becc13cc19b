import Glibc
import Hypervisor
import Jail
import LinuxSystem
import Telemetry

/// What a pod is asked for its metrics. The actor is asked for a moment only; what takes time runs beside it.
extension Pod {
    /// What of the pod the metrics are read from.
    struct Subject: Sendable {
        var running: RunningPod?
        /// Of the running pod's machine.
        var size: MachineSize?
        var processes: [(kind: String, pid: Int32)]
        /// Ids and states.
        var containers: [(id: String, state: String)]
        /// Nanoseconds since the epoch; 0: not yet.
        var createdAt: Int64
        /// Whether it goes on from a checkpoint.
        var isRestored: Bool
    }

    private var subject: Subject {
        var running: RunningPod?
        if case .running(let pod) = phase { running = pod }
        var processes: [(kind: String, pid: Int32)] = [("server", getpid())]
        for process in machine?.processes ?? [] {
            processes.append((JailPlan.Kind(process: process.name)?.rawValue ?? "other", process.pid))
        }
        let hosts = containers.values.flatMap(\.processes).filter { !$0.phase.isStopped }.compactMap(\.host)
        processes += (hosts + [sandboxProcess].compactMap { $0 }).map { (kind: "container", pid: $0.pid) }
        return Subject(
            running: running, size: running.map(size), processes: processes,
            containers: containers.values.map { (id: $0.id, state: $0.first.phase.name) }.sorted { $0.id < $1.id },
            createdAt: createdAt, isRestored: containers.values.contains { $0.isRestored })
    }

    /// The pod's metrics now. What can't be read is not in it.
    package nonisolated func readings() async -> MetricReadings {
        let subject = await subject
        var readings = MetricRegistry.shared.readings()
        async let guest = subject.guest()
        async let host = onThread("metrics") { [environment] in subject.host(environment) }
        readings.add(subject.pod())
        if let host = try? await host { readings.add(host) }
        readings.add(await guest)
        return readings
    }

    /// What the pod as a whole uses on the host, and how much memory its machine has in bytes.
    ///
    /// - Throws: `SandboxError.notFound` while the pod does not run.
    package nonisolated func hostUsage() async throws -> (use: HostUsage, guestMemory: UInt64) {
        let subject = await subject
        guard let pod = subject.running else { throw SandboxError.notFound("pod \(environment.id)") }
        let use = try await onThread("metrics") { HostUsage(of: subject.processes) }
        return (use, UInt64(subject.size?.memoryMiB ?? pod.plan.machine.memoryMiB) << 20)
    }
}

extension Pod.Subject {
    /// What the server knows by itself.
    func pod() -> MetricReadings {
        var readings = MetricReadings()
        for state in ["created", "running", "paused", "stopped"] {
            readings.add(.podContainers, [state], UInt64(containers.count { $0.state == state }))
        }
        guard let size else { return readings }
        readings.add(.podStartTime, [], Double(createdAt) / 1e9)
        readings.add(.guestMemory, [], UInt64(size.memoryMiB) << 20)
        readings.add(.guestVCPUs, [], UInt64(size.vcpus))
        return readings
    }

    /// What the host's kernel knows. Blocks.
    func host(_ environment: PodEnvironment) -> MetricReadings {
        var readings = HostUsage(of: processes).readings()
        guard let running else { return readings }
        let isFromTemplate = environment.directory.read()?.template != nil
        let start = isFromTemplate ? "template" : isRestored ? "checkpoint" : "boot"
        readings.add(.podInfo, [running.plan.driver.name, start], UInt64(1))
        for (name, counts) in (try? running.network.statistics()) ?? [] {
            // The host receives what the guest sends.
            for (direction, part) in [("receive", counts.sent), ("transmit", counts.received)] {
                readings.add(.networkBytes, [name, direction], part.bytes)
                readings.add(.networkPackets, [name, direction], part.packets)
                readings.add(.networkDrops, [name, direction], part.dropped)
                readings.add(.networkErrors, [name, direction], part.errors)
            }
        }
        for statistics in running.machine.statistics(timeout: Self.limit) { readings.add(statistics.readings()) }
        for (kind, pid) in processes where kind == "vmm" || kind == "qemu" {
            readings.add(VCPUExits.readings(of: pid))
        }
        return readings
    }

    /// How long the guest may take; what has not come then is left out.
    private static let limit = Duration.seconds(2)

    /// What the guest says of itself and of its containers. One that stands still is not woken up for it.
    func guest() async -> MetricReadings {
        guard let running, running.machine.state == .running else { return MetricReadings() }
        let agent = GuestAgent(client: running.agent.client, timeout: Self.limit, names: running.agent.names)
        return await withTaskGroup(of: MetricReadings?.self) { group in
            group.addTask { try? await MetricReadings(agent.guestStatistics()) }
            for (id, state) in containers where state != "stopped" {
                group.addTask { try? await agent.statistics(id).readings(id) }
            }
            var readings = MetricReadings()
            for await part in group { if let part { readings.add(part) } }
            return readings
        }
    }
}
