/// The version of Martlet, of the host's programs and of the guest's agent alike.
public let martletVersion = "0.1.0"

/// The version of the agent API: of the calls (`AgentAPI`) and of everything in this module.
public enum AgentProtocol {
    /// Goes up with each change that an older agent or an older host would not understand.
    public static let version: UInt32 = 10

    /// What keeps an agent and a host from working together.
    ///
    /// Both sides ask this: the host names its version in `CreateSandbox`, the agent its own in the reply.
    ///
    /// - Parameters:
    ///   - agent: the version that the agent speaks; 0 where it names none.
    ///   - host: the version that the host speaks; 0 where it names none.
    /// - Returns: the reason to refuse, or nil where both speak the same version.
    public static func mismatch(agent: UInt32, host: UInt32) -> String? {
        if agent == host { return nil }
        return "the guest image's agent speaks \(name(agent)) of the agent API, this martlet speaks \(name(host)): "
            + "build the guest anew (make guest)"
    }

    private static func name(_ version: UInt32) -> String {
        version == 0 ? "an unnumbered version" : "version \(version)"
    }
}

/// The vsock ports that the agent listens on. Only the host connects.
public enum AgentPort {
    /// ttrpc: the calls of `AgentAPI`.
    public static let rpc: UInt32 = 1024
    /// Streams: each connection begins with a `StreamNumber`.
    public static let streams: UInt32 = 1025
}

/// Limits that both sides keep.
public enum AgentLimit {
    /// The longest host name, in bytes (`__NEW_UTS_LEN`, linux/utsname.h).
    public static let hostnameBytes = 64
    /// How long the agent waits in `DetachStreams` until all streams are detached, seconds.
    public static let detachSeconds = 10
    /// The most spans in a reply.
    public static let spans = 64
}
