import FuzzSupport

@testable import LinuxSystem

/// Datagrams of a netlink socket, and what is read of each message in them.
final class NetlinkTarget: FuzzTarget {
    private static let types: [UInt16] = [16, 20, 24, 28, 2, 3]

    /// Input: messages of a known type with attributes, or bytes as they are.
    func run(_ input: inout Input) throws {
        var datagram: [UInt8] = []
        while !input.isEmpty && datagram.count < 8192 {
            if input.byte() > 240 {
                datagram += input.take(Int(input.byte()))
                continue
            }
            let payload = input.take(12 + Int(input.byte() % 32)) + attributes(&input, depth: 0)
            let length = input.byte() > 240 ? input.number() : UInt32(16 + payload.count)
            datagram += octets(length) + octets(input.pick(Self.types)) + octets(UInt16(input.byte()))
            datagram += octets(UInt32(1)) + octets(UInt32(0)) + payload
        }
        for reply in NetlinkReply.parse(datagram[...]) {
            _ = RouteSocket.link(reply)
            _ = RouteSocket.address(reply)
            _ = RouteSocket.route(reply)
            _ = RouteSocket.neighbour(reply)
            _ = RouteSocket.error(reply, ("list", "everything"))
        }
    }

    private func attributes(_ input: inout Input, depth: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<input.byte() % 8 {
            let isNested = depth < 3 && input.byte() > 220
            let content = isNested ? attributes(&input, depth: depth + 1) : input.take(Int(input.byte() % 24))
            let length = input.byte() > 240 ? input.word() : UInt16(4 + content.count)
            bytes += octets(length) + octets(UInt16(input.byte() % 64)) + content
            bytes += [UInt8](repeating: 0, count: -content.count & 3)
        }
        return bytes
    }

    private func octets<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }
}
