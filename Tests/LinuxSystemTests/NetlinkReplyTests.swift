import Testing

@testable import LinuxSystem

/// Replies as no kernel should send them.
@Suite struct NetlinkReplyTests {
    private func error(_ code: Int32) -> SystemError? {
        let payload = withUnsafeBytes(of: code.littleEndian) { Array($0) }
        let reply = NetlinkReply(type: 2, flags: 0, sequence: 1, payload: payload[...])
        return RouteSocket.error(reply, ("list", "links"))
    }

    @Test func anErrorHasAnyNumber() {
        #expect(error(0) == nil)
        #expect(error(-1)?.errno.rawValue == 1)
        // The one number whose negative is none.
        #expect(error(.min)?.errno.rawValue == .min)
    }
}
