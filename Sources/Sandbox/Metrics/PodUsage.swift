import LinuxSystem

/// What a pod's processes on the host have used so far, the machine's among them.
public struct PodUsage: Sendable, Equatable {
    public let pod: String
    /// Microseconds of all CPUs.
    public let cpu: UInt64
    /// Bytes; what processes share is divided among them.
    public let memory: UInt64
    /// Bytes from and to the host's disks.
    public let read: UInt64
    public let written: UInt64

    /// Of all pods that run; blocks.
    ///
    /// - Parameter root: `paths.root`.
    public static func all(root: String) -> [PodUsage] {
        PodList.all(root: root).filter(\.isRunning).map { pod in
            let processes = StateDirectory(path: pod.directory).read()?.processes ?? []
            let use = HostUsage(of: processes.map { ($0.name, $0.pid) }).kinds.values
            func sum(_ field: (HostUsage.Counters) -> UInt64) -> UInt64 { use.reduce(0) { $0 + field($1) } }
            return PodUsage(
                pod: pod.id, cpu: sum { $0.user + $0.system }, memory: sum { $0.proportional ?? $0.resident },
                read: sum(\.storageRead), written: sum(\.storageWritten))
        }
    }
}
