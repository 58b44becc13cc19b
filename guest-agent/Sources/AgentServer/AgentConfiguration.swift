public import OCISpec

/// What the agent is told when it starts.
public struct AgentConfiguration: Sendable {
    /// Where the host reaches the agent.
    public enum Listening: Sendable {
        /// vsock ports: calls, and the streams of processes.
        case vsock(calls: UInt32, streams: UInt32)
        /// A Unix socket for calls, and the same path with `.streams` for streams: to try the agent without a guest.
        case unix(String)
    }

    public var listening = Listening.vsock(calls: 1024, streams: 1025)
    /// The directory that the file device's shares show in.
    public var shares = "/run/martlet/shares"
    /// The directory of the volumes that are in memory.
    public var volumes = "/run/martlet/volumes"
    /// The cgroup that has the containers' cgroups.
    public var controlGroup = "/sys/fs/cgroup/martlet"
    /// How long a container's processes may take to stand still or to go on.
    public var freezeLimit = Duration.seconds(10)
    /// Whether it is the guest's first process, which sets the guest up and powers it off.
    public var isInit = false
    public var faults = Faults()

    public init() {}
}

/// Points at which the fault-injecting build does harm; the agent itself does nothing there.
public struct Faults: Sendable {
    public var booted: @Sendable (_ commandLine: String) -> Void = { _ in }
    public var started: @Sendable (_ spec: Spec) -> Void = { _ in }
    /// Whether the streams of this container's processes are left alone.
    public var stallsStreams: @Sendable (_ spec: Spec) -> Bool = { _ in false }

    public init() {}
}

public enum AgentVersion {
    public static let current = "0.1.0"
}
