public import AgentAPI
import AgentContract
public import OCISpec

/// The agent's configuration.
public struct AgentConfiguration: Sendable {
    /// Where the host reaches the agent.
    public enum Listening: Sendable {
        /// vsock ports: calls, and the streams of processes.
        case vsock(calls: UInt32, streams: UInt32)
        /// A Unix socket for calls, and the same path with `.streams` for streams: to try the agent without a guest.
        case unix(String)
    }

    public var listening = Listening.vsock(calls: AgentPort.rpc, streams: AgentPort.streams)
    /// The directory that the file device's shares show in.
    public var shares = GuestPath.shares
    /// The directory of the volumes that are in memory.
    public var volumes = GuestPath.volumes
    /// The cgroup that has the containers' cgroups.
    public var controlGroup = "/sys/fs/cgroup/martlet"
    /// That of processes in the machine itself.
    var machineGroup: String { controlGroup + "-machine" }
    /// How long a container's processes may take to stand still or to go on.
    public var freezeLimit = Duration.seconds(10)
    /// Whether it is the guest's first process, which sets the guest up and powers it off.
    public var isInit = false
    public var faults = Faults()

    public init() {}
}

/// Points at which the fault-injecting build injects faults; the agent itself does nothing there.
public struct Faults: Sendable {
    public var booted: @Sendable (_ commandLine: String) -> Void = { _ in }
    public var started: @Sendable (_ spec: Spec) -> Void = { _ in }
    /// Whether the streams of this container's processes are left alone.
    public var stallsStreams: @Sendable (_ spec: Spec) -> Bool = { _ in false }
    /// What answers the host in place of the agent's service.
    public var service: @Sendable (_ service: any AgentService) -> any AgentService = { $0 }

    public init() {}
}
