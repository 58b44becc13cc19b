import AgentAPI
import Telemetry

extension MetricReadings {
    /// What the guest as a whole uses. What it names otherwise than it should is left out.
    init(_ guest: AgentGuestStatsResponse) {
        self.init()
        for (family, name) in [
            (MetricFamily.guestAvailable, "MemAvailable"), (.guestFree, "MemFree"), (.guestCached, "Cached"),
        ] {
            if let bytes = guest.memory[name] { add(family, [], bytes) }
        }
        for resource in ["cpu", "memory", "io"] {
            guard let pressure = guest.pressure.first(where: { $0.resource == resource }) else { continue }
            add(.guestPressure, [resource, "some"], Double(pressure.some) / 1e6)
            add(.guestPressure, [resource, "full"], Double(pressure.full) / 1e6)
        }
    }
}

extension ContainerStatistics {
    /// - Parameter id: the container's.
    func readings(_ id: String) -> MetricReadings {
        var readings = MetricReadings()
        func seconds(_ name: String) -> Double { Double(cpu[name] ?? 0) / 1e6 }
        readings.add(.containerCPU, [id, "user"], seconds("user_usec"))
        readings.add(.containerCPU, [id, "system"], seconds("system_usec"))
        if cpu["throttled_usec"] != nil { readings.add(.containerThrottled, [id], seconds("throttled_usec")) }
        readings.add(.containerMemory, [id], memoryUsage)
        if memoryPeak > 0 { readings.add(.containerMemoryPeak, [id], memoryPeak) }
        if memoryLimit != .max { readings.add(.containerMemoryLimit, [id], memoryLimit) }
        readings.add(.containerAnonymous, [id], memory["anon"] ?? 0)
        readings.add(.containerFile, [id], memory["file"] ?? 0)
        readings.add(.containerSwap, [id], swapUsage)
        readings.add(.containerProcesses, [id], pidsCurrent)
        readings.add(.containerOOMKills, [id], memoryEvents["oom_kill"] ?? 0)
        readings.add(.containerMajorFaults, [id], memory["pgmajfault"] ?? 0)
        func sum(_ name: String) -> UInt64 { disks.reduce(0) { $0 &+ ($1.counters[name] ?? 0) } }
        for (direction, letter) in [("read", "r"), ("write", "w")] {
            readings.add(.containerDiskBytes, [id, direction], sum("\(letter)bytes"))
            readings.add(.containerDiskOperations, [id, direction], sum("\(letter)ios"))
        }
        return readings
    }
}
