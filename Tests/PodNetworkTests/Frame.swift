import LinuxSystem

/// Ethernet frames, from the interface with the address `own` where nothing else is said.
enum Frame {
    static let own: [UInt8] = [2, 0, 0xaa, 0, 0, 7]

    static func ethernet(_ type: UInt16, from hardware: [UInt8] = own, _ payload: [UInt8]) -> [UInt8] {
        [UInt8](repeating: 0xff, count: 6) + hardware + big(type) + payload
    }

    /// The frame in VLAN 5.
    static func tagged(_ frame: [UInt8], _ type: UInt16 = 0x8100) -> [UInt8] {
        frame.prefix(12) + big(type) + [0, 5] + frame.dropFirst(12)
    }

    static func internet4(
        _ source: String, to target: String = "10.4.0.1", from hardware: [UInt8] = own,
        _ payload: [UInt8] = [1, 2, 3, 4]
    ) -> [UInt8] {
        let length = UInt16(20 + payload.count)
        return ethernet(
            0x0800, from: hardware,
            [0x45, 0] + big(length) + [0, 0, 0, 0, 64, 17, 0, 0] + address(source) + address(target) + payload)
    }

    static func udp(_ source: UInt16, _ target: UInt16) -> [UInt8] { big(source) + big(target) + [0, 8, 0, 0] }

    static func arp(_ operation: UInt16, hardware: [UInt8] = own, sender: String) -> [UInt8] {
        ethernet(
            0x0806,
            [0, 1, 8, 0, 6, 4] + big(operation) + hardware + address(sender) + [0, 0, 0, 0, 0, 0]
                + address("10.4.0.1"))
    }

    static func internet6(
        _ source: String, from hardware: [UInt8] = own, next: UInt8 = 17, _ payload: [UInt8] = [1, 2, 3, 4]
    ) -> [UInt8] {
        ethernet(
            0x86dd, from: hardware,
            [0x60, 0, 0, 0] + big(UInt16(payload.count)) + [next, 255] + address(source) + address("ff02::1") + payload)
    }

    /// A message of ICMPv6.
    ///
    /// - Parameter headers: extension headers before it: each its number, and its length field.
    static func icmp6(
        _ source: String, _ type: UInt8, target: String = "::", behind headers: [(kind: UInt8, length: UInt8)] = []
    ) -> [UInt8] {
        var next: UInt8 = 58
        var payload = [type, 0, 0, 0, 0, 0, 0, 0] + address(target)
        for header in headers.reversed() {
            let rest = [UInt8](repeating: 0, count: 6 + 8 * Int(header.length))
            payload = [next, header.length] + rest + payload
            next = header.kind
        }
        return internet6(source, next: next, payload)
    }

    private static func big(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(truncatingIfNeeded: number)] }

    private static func address(_ text: String) -> [UInt8] { IPAddress(text)?.bytes ?? [] }
}
