/// What an interface has counted since it was made (linux/if_link.h, `struct rtnl_link_stats64`).
public struct LinkStatistics: Sendable, Equatable {
    /// What came in to the host, or went out from it.
    public struct Direction: Sendable, Equatable {
        public var packets: UInt64
        public var bytes: UInt64
        public var errors: UInt64
        public var dropped: UInt64
    }

    public var received: Direction
    public var sent: Direction
}

extension RouteSocket {
    /// IFLA_STATS64.
    private static let statisticsAttribute: UInt16 = 23

    /// What all links of the namespace have counted, by index.
    public func statistics() throws(SystemError) -> [Int32: LinkStatistics] {
        // RTM_GETLINK, with an empty `struct ifinfomsg`.
        var message = NetlinkMessage(18, .dump)
        for _ in 0..<4 { message.put(UInt32(0)) }
        var found: [Int32: LinkStatistics] = [:]
        for reply in try exchange(message, "list", "statistics of links") where reply.type == 16 {
            guard let bytes = reply.attributes(after: 16).bytes(Self.statisticsAttribute), bytes.count >= 64 else {
                continue
            }
            // Packets, bytes, errors and drops; of each what came in, then what went out.
            let numbers = (0..<8).map { bytes[...].number($0 * 8, UInt64.self) }
            func direction(_ offset: Int) -> LinkStatistics.Direction {
                .init(
                    packets: numbers[offset], bytes: numbers[offset + 2], errors: numbers[offset + 4],
                    dropped: numbers[offset + 6])
            }
            found[reply.payload.number(4, Int32.self)] = LinkStatistics(received: direction(0), sent: direction(1))
        }
        return found
    }
}
