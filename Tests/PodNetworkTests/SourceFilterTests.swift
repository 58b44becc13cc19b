import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import PodNetwork

/// Which frames the filter takes, as the kernel's BPF runs it on a socket.
@Suite struct SourceFilterTests {
    /// A pair of sockets of which the second drops what the filter drops.
    private struct Gate {
        /// struct sock_fprog.
        private struct Program {
            var count: UInt16
            var instructions: UnsafeMutableRawPointer?
        }

        let (sender, receiver): (SharedDescriptor, SharedDescriptor)

        init(_ filter: PacketFilter) throws {
            (sender, receiver) = try SharedDescriptor.socketPair(SOCK_DGRAM)
            try receiver.setNonBlocking(true)
            var bytes = filter.bytes
            try bytes.withUnsafeMutableBytes { bytes in
                var program = Program(count: UInt16(filter.count), instructions: bytes.baseAddress)
                let size = socklen_t(MemoryLayout<Program>.size)
                try check(
                    "setsockopt", "SO_ATTACH_FILTER",
                    setsockopt(receiver.raw, SOL_SOCKET, SO_ATTACH_FILTER, &program, size))
            }
        }

        func takes(_ frame: [UInt8]) -> Bool {
            // A Unix socket tells the sender that the filter has dropped a message.
            guard write(sender.raw, frame, frame.count) == frame.count else { return false }
            var buffer = [UInt8](repeating: 0, count: 2048)
            return read(receiver.raw, &buffer, buffer.count) == frame.count && buffer.starts(with: frame)
        }
    }

    private static let gate = Result {
        try Gate(
            SourceFilter.program(
                hardwareAddress: Frame.own,
                addresses: ["10.4.0.7", "10.4.0.8", "fd04::7", "fd04::1:7"].compactMap { IPAddress($0) }))
    }

    @Test(arguments: [
        ("own address", Frame.internet4("10.4.0.7"), true),
        ("another own address", Frame.internet4("10.4.0.8"), true),
        ("another address", Frame.internet4("10.4.0.9"), false),
        ("no address", Frame.internet4("0.0.0.0"), false),
        ("another hardware address", Frame.internet4("10.4.0.7", from: [2, 0, 0, 0, 0, 9]), false),
        (
            "another hardware address in the last byte", Frame.internet4("10.4.0.7", from: Frame.own.dropLast() + [9]),
            false
        ),
        ("IPv6 as IPv4", Frame.ethernet(0x0800, Array(Frame.internet6("fd04::7").dropFirst(14))), false),
        ("cut short", Array(Frame.internet4("10.4.0.7").prefix(29)), false),
        ("the header only", Array(Frame.internet4("10.4.0.7").prefix(14)), false),
        ("a VLAN", Frame.tagged(Frame.internet4("10.4.0.7")), false),
        ("a provider's VLAN", Frame.tagged(Frame.internet4("10.4.0.7"), 0x88a8), false),
        ("LLC", Frame.ethernet(3, [0x42, 0x42, 3]), false),
        ("another protocol", Frame.ethernet(0x88cc, [0, 0, 0, 0]), false),
        ("DHCP", Frame.internet4("0.0.0.0", to: "255.255.255.255", Frame.udp(68, 67)), true),
        ("DHCP to a host", Frame.internet4("0.0.0.0", to: "10.4.0.1", Frame.udp(68, 67)), false),
        ("a DHCP server", Frame.internet4("0.0.0.0", to: "255.255.255.255", Frame.udp(67, 68)), false),
    ])
    func internet4(_ name: String, _ frame: [UInt8], _ passes: Bool) throws {
        #expect(try Self.gate.get().takes(frame) == passes)
    }

    @Test(arguments: [
        ("a request", Frame.arp(1, sender: "10.4.0.7"), true),
        ("a reply", Frame.arp(2, sender: "10.4.0.8"), true),
        ("a probe", Frame.arp(1, sender: "0.0.0.0"), true),
        ("a reply without an address", Frame.arp(2, sender: "0.0.0.0"), false),
        ("a reply for another", Frame.arp(2, sender: "10.4.0.1"), false),
        ("a request of another", Frame.arp(1, sender: "10.4.0.1"), false),
        ("another hardware address", Frame.arp(2, hardware: [2, 0, 0, 0, 0, 9], sender: "10.4.0.7"), false),
        ("RARP", Frame.arp(3, sender: "10.4.0.7"), false),
        ("cut short", Array(Frame.arp(1, sender: "10.4.0.7").prefix(30)), false),
    ])
    func resolution(_ name: String, _ frame: [UInt8], _ passes: Bool) throws {
        #expect(try Self.gate.get().takes(frame) == passes)
    }

    @Test(arguments: [
        ("own address", Frame.internet6("fd04::7"), true),
        ("another own address", Frame.internet6("fd04::1:7"), true),
        ("another address", Frame.internet6("fd04::8"), false),
        ("link-local", Frame.internet6("fe80::aaff:fe00:7"), true),
        ("another's link-local", Frame.internet6("fe80::aaff:fe00:8"), false),
        ("no address", Frame.internet6("::"), false),
        ("a router solicitation", Frame.icmp6("fe80::aaff:fe00:7", 133), true),
        ("a router solicitation without an address", Frame.icmp6("::", 133), true),
        ("a router advertisement", Frame.icmp6("fe80::aaff:fe00:7", 134), false),
        ("a redirect", Frame.icmp6("fe80::aaff:fe00:7", 137), false),
        ("an echo request", Frame.icmp6("fd04::7", 128), true),
        ("an echo request without an address", Frame.icmp6("::", 128), false),
        ("a solicitation", Frame.icmp6("fd04::7", 135, target: "fd04::1"), true),
        ("an advertisement", Frame.icmp6("fd04::7", 136, target: "fd04::1:7"), true),
        ("an advertisement for another", Frame.icmp6("fd04::7", 136, target: "fd04::1"), false),
        ("detection of duplicates", Frame.icmp6("::", 135, target: "fd04::7"), true),
        ("detection of duplicates of another", Frame.icmp6("::", 135, target: "fd04::1"), false),
        ("a listener report", Frame.icmp6("fd04::7", 143, behind: [(0, 0)]), true),
        ("a listener report without an address", Frame.icmp6("::", 143, behind: [(0, 0)]), true),
        ("an advertisement behind options", Frame.icmp6("fd04::7", 134, behind: [(0, 0)]), false),
        ("an advertisement behind long options", Frame.icmp6("fd04::7", 134, behind: [(0, 2)]), false),
        ("an advertisement without an address behind options", Frame.icmp6("::", 134, behind: [(0, 0)]), false),
        ("an advertisement in a fragment", Frame.icmp6("fd04::7", 136, target: "fd04::7", behind: [(44, 0)]), false),
        ("an echo request in a fragment", Frame.icmp6("fd04::7", 128, behind: [(44, 0)]), true),
        ("an advertisement behind destination options", Frame.icmp6("fd04::7", 134, behind: [(60, 0)]), false),
        ("an advertisement behind two headers", Frame.icmp6("fd04::7", 134, behind: [(0, 0), (60, 0)]), false),
        ("cut short", Array(Frame.icmp6("fd04::7", 136, target: "fd04::7").prefix(70)), false),
    ])
    func internet6(_ name: String, _ frame: [UInt8], _ passes: Bool) throws {
        #expect(try Self.gate.get().takes(frame) == passes)
    }

    @Test func aPodWithoutAddressesAsksForOne() throws {
        let gate = try Gate(SourceFilter.program(hardwareAddress: Frame.own, addresses: []))
        #expect(gate.takes(Frame.internet4("0.0.0.0", to: "255.255.255.255", Frame.udp(68, 67))))
        #expect(!gate.takes(Frame.internet4("10.4.0.7")))
    }

    @Test func eachOfSeveralAddressesPasses() throws {
        let addresses = ["fd04::1", "fd04::2", "10.4.1.1", "fd04::3", "10.4.1.2", "10.4.1.3"]
        let filter = SourceFilter.program(
            hardwareAddress: Frame.own, addresses: addresses.compactMap { IPAddress($0) })
        let gate = try Gate(filter)
        for address in addresses {
            #expect(gate.takes(address.contains(":") ? Frame.internet6(address) : Frame.internet4(address)))
        }
        #expect(!gate.takes(Frame.internet6("fd04::4")) && !gate.takes(Frame.internet4("10.4.1.4")))
    }
}
