import LinuxSystem

/// How a container's process ended.
struct ExitRecord: Sendable, Equatable {
    /// 0–255; 255 when the VM ended under it.
    var status: UInt32
    /// Nanoseconds since the epoch.
    var at: Int64
}

/// A container of the pod, as the pod's server knows it.
struct Container: Sendable {
    enum Phase: Sendable, Equatable {
        case created
        case running
        case stopped(ExitRecord)

        /// For messages.
        var name: String {
            switch self {
            case .created: "created"
            case .running: "running"
            case .stopped: "stopped"
            }
        }
    }

    let id: String
    let bundle: String
    let terminal: Bool
    let stdio: (stdin: String, stdout: String, stderr: String)
    let plan: SandboxPlan.Container
    let streams: ProcessStreams
    let exit: Promise<ExitRecord>
    var phase = Phase.created
}
