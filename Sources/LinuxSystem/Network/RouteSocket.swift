import CLinux
import Glibc
import Synchronization

/// A netlink socket for links, addresses, routes, neighbours and traffic control (rtnetlink(7)).
///
/// It belongs to the network namespace of the thread that created it, whoever uses it later. It is thread-safe: requests are
/// sent one at a time.
public final class RouteSocket: Sendable {
    /// Multicast groups, which report changes (RTNLGRP_*).
    public struct Groups: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let links = Groups(rawValue: 1 << 0)
        public static let neighbours = Groups(rawValue: 1 << 2)
        public static let addresses = Groups(rawValue: 1 << 4 | 1 << 8)
        public static let routes = Groups(rawValue: 1 << 6 | 1 << 10)
    }

    /// The time for a reply of the kernel, seconds.
    private static let replyTimeout = 5
    private static let bufferSize = 64 << 10

    public let socket: SharedDescriptor
    private let sequence = Mutex<UInt32>(0)

    /// - Parameter groups: the changes to report. A socket with groups is for `drain` only.
    public init(groups: Groups = []) throws(SystemError) {
        socket = SharedDescriptor(
            OwnedDescriptor(
                owning: try check(
                    "socket", "rtnetlink",
                    Glibc.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), Int32(NETLINK_ROUTE)))))
        // NETLINK_CAP_ACK and NETLINK_EXT_ACK of SOL_NETLINK: the kernel explains errors in text.
        for option in [Int32(10), 11] { setOption(270, option, Int32(1)) }
        setOption(SOL_SOCKET, SO_RCVTIMEO, timeval(tv_sec: Self.replyTimeout, tv_usec: 0))
        var address = sockaddr_nl()
        address.nl_family = sa_family_t(AF_NETLINK)
        address.nl_groups = groups.rawValue
        let raw = socket.raw
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(raw, $0, socklen_t(MemoryLayout<sockaddr_nl>.size))
            }
        }
        try check("bind", "rtnetlink", bound)
    }

    private func setOption<T>(_ level: Int32, _ option: Int32, _ value: T) {
        withUnsafeBytes(of: value) {
            _ = setsockopt(socket.raw, level, option, $0.baseAddress, socklen_t($0.count))
        }
    }

    /// Sends a request and waits for its acknowledgement.
    func perform(
        _ message: NetlinkMessage, _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String
    ) throws(SystemError) {
        _ = try exchange(message, operation(), subject())
    }

    /// Sends a request and returns all replies.
    func exchange(
        _ message: NetlinkMessage, _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String
    ) throws(SystemError) -> [NetlinkReply] {
        let what = (operation(), subject())
        let result: Result<[NetlinkReply], SystemError> = sequence.withLock { sequence in
            do throws(SystemError) {
                // A list that changed while it was read may be incomplete: read it again.
                for _ in 0..<10 {
                    sequence &+= 1
                    if let replies = try exchangeOnce(message, sequence, what) { return .success(replies) }
                }
                throw SystemError(what.0, what.1, errno: .interrupted)
            } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// Sends a request once.
    ///
    /// - Returns: the replies; nil when the list changed while it was read.
    private func exchangeOnce(
        _ message: NetlinkMessage, _ sequence: UInt32, _ what: (String, String)
    ) throws(SystemError) -> [NetlinkReply]? {
        let bytes = message.finished(sequence: sequence)
        let raw = socket.raw
        try retrying(what.0, what.1) { send(raw, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
        var buffer = [UInt8](repeating: 0, count: Self.bufferSize)
        var replies: [NetlinkReply] = []
        var isComplete = true
        while true {
            let count = try retrying(what.0, what.1) { recv(raw, &buffer, buffer.count, 0) }
            for reply in NetlinkReply.parse(buffer[..<count]) where reply.sequence == sequence {
                if reply.flags & 0x10 != 0 { isComplete = false }  // NLM_F_DUMP_INTR
                switch reply.type {
                case 2:  // NLMSG_ERROR, also "done" with 0
                    if let error = Self.error(reply, what) { throw error }
                    return replies
                case 3: return isComplete ? replies : nil  // NLMSG_DONE
                default: replies.append(reply)
                }
            }
        }
    }

    /// The error of an acknowledgement, with the kernel's text (NLMSGERR_ATTR_MSG) if there is one; nil on success.
    static func error(_ reply: NetlinkReply, _ what: (String, String)) -> SystemError? {
        let code = Int32(bitPattern: reply.payload.number(0, UInt32.self))
        if code == 0 { return nil }
        var detail = ""
        if reply.flags & 0x200 != 0 {  // NLM_F_ACK_TLVS
            // The request's header follows, and all of the request unless it is capped (NLM_F_CAPPED).
            let echoed = reply.flags & 0x100 != 0 ? 16 : Int(reply.payload.number(4, UInt32.self))
            detail = reply.attributes(after: 4 + ((echoed + 3) & ~3)).text(1) ?? ""
        }
        return SystemError(what.0, what.1, errno: .init(rawValue: 0 &- code), detail: detail)
    }

    /// Reads all reports of a socket with `groups`, without waiting.
    ///
    /// - Returns: whether there were any, or reports were lost because there were too many.
    public func drain() -> Bool {
        var buffer = [UInt8](repeating: 0, count: Self.bufferSize)
        var any = false
        while true {
            let count = recv(socket.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            if count > 0 || (count < 0 && errno == ENOBUFS) {
                any = true
            } else if count == 0 || errno != EINTR {
                return any
            }
        }
    }
}
