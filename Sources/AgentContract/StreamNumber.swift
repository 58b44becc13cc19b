/// The number that the host sends first on each connection to `AgentPort.streams`.
///
/// Numbers with the highest bit set are for the guest's loopback interface, those with the next bit for targets: what the guest
/// may reach on the host; one is for heartbeats. All others are streams of processes, which `CreateContainer` and `ExecProcess` name; 0 is none.
public enum StreamNumber {
    /// Bytes on the wire, little-endian.
    public static let encodedSize = 8
    private static let loopbackMark: UInt64 = 1 << 63
    private static let targetMark: UInt64 = 1 << 62

    /// The connection of heartbeats: the agent sends each 8 bytes back that it gets.
    public static let heartbeat: UInt64 = 1 << 61

    /// The connection on which the agent asks for connections to targets (`TargetMessage`). There is one at a time.
    public static let targets = targetConnection(0)

    /// The number of the connection to a target that the agent asked for by `connection`, which is not 0.
    public static func targetConnection(_ connection: UInt64) -> UInt64 { targetMark | connection }

    /// What the agent called a connection to a target; 0 for `targets`; nil for another kind of stream.
    public static func targetConnection(of number: UInt64) -> UInt64? {
        number & (loopbackMark | targetMark) == targetMark ? number & ~targetMark : nil
    }

    /// The number of a connection to a TCP port on the guest's loopback interface, or on another of its addresses.
    ///
    /// Port 0 connects to no server: the agent sends the ports that are listened on, at once and with every change. Each list
    /// is a count and that many ports, 2 bytes each, little-endian.
    ///
    /// - Parameter address: of IPv4, its first byte the highest; 0: the loopback interface's.
    public static func loopback(port: UInt16, address: UInt32 = 0) -> UInt64 {
        loopbackMark | UInt64(address) << 16 | UInt64(port)
    }

    /// The TCP port of a loopback connection; nil for a stream of a process.
    public static func loopbackPort(_ number: UInt64) -> UInt16? {
        number & loopbackMark == 0 ? nil : UInt16(truncatingIfNeeded: number)
    }

    /// The address of a loopback connection; 0: the loopback interface's.
    public static func loopbackAddress(_ number: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: number >> 16) }
}
