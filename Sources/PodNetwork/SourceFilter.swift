import LinuxSystem

/// The frames that a guest may send on an interface: those from the pod's own addresses (`network.source_filter`).
///
/// - Ethernet: the interface's hardware address as the source, no VLAN tag, and IPv4, ARP or IPv6 in it.
/// - ARP: requests and replies about own addresses, and probes (RFC 5227).
/// - IPv4: an own source address, and the broadcasts of a DHCP client that has none.
/// - IPv6: an own source address or the link-local one of the hardware address; without an address only what RFC 4862 needs:
///   neighbour solicitations for an own address, router solicitations, multicast listener reports.
/// - ICMPv6: no router advertisements, no redirects, neighbour advertisements for own addresses only.
enum SourceFilter {
    /// Offsets in a frame: of the Ethernet header's fields, and of the packet.
    private static let source: UInt32 = 6, type: UInt32 = 12, packet: UInt32 = 14
    private static let ip6Payload = packet + 40

    /// - Parameters:
    ///   - hardwareAddress: the interface's, 6 bytes.
    ///   - addresses: the pod's own.
    static func program(hardwareAddress: [UInt8], addresses: [IPAddress]) -> PacketFilter {
        let ip4 = addresses.map(\.bytes).filter { $0.count == 4 }
        let ip6 = addresses.map(\.bytes).filter { $0.count == 16 } + [linkLocal(hardwareAddress)]
        return PacketFilter(
            .hasVLANTag, .require(0),
            require(hardwareAddress, at: source),
            .half(type),
            .ifOne(of: 0x0800, then: internet4(ip4)),
            .ifOne(of: 0x0806, then: resolution(hardwareAddress, ip4)),
            .ifOne(of: 0x86dd, then: internet6(ip6)),
            .drop)
    }

    private static func require(_ hardwareAddress: [UInt8], at offset: UInt32) -> PacketFilter {
        let (first, last) = (hardwareAddress.prefix(4), hardwareAddress.suffix(2))
        return PacketFilter(
            .word(offset), .require(first.reduce(0) { $0 << 8 | UInt32($1) }),
            .half(offset + 4), .require(last.reduce(0) { $0 << 8 | UInt32($1) }))
    }

    /// fe80::/64 with the interface's identifier in it (RFC 4291, appendix A).
    private static func linkLocal(_ address: [UInt8]) -> [UInt8] {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, address[0] ^ 2, address[1], address[2], 0xff, 0xfe] + address[3...]
    }

    /// RFC 826: Ethernet and IPv4.
    private static func resolution(_ hardwareAddress: [UInt8], _ addresses: [[UInt8]]) -> PacketFilter {
        let (operation, senderAddress) = (packet + 6, packet + 14)
        return PacketFilter(
            .word(packet), .require(0x0001_0800), .half(packet + 4), .require(0x0604),
            .half(operation), .require(1, 2),
            require(hardwareAddress, at: packet + 8),
            .ifEqual(at: senderAddress, [0, 0, 0, 0], PacketFilter(.half(operation), .require(1), .take)),
            .require(at: senderAddress, oneOf: addresses), .take)
    }

    /// RFC 791.
    private static func internet4(_ addresses: [[UInt8]]) -> PacketFilter {
        let (fragment, protocolNumber, sender, receiver) = (packet + 6, packet + 9, packet + 12, packet + 16)
        let dhcp = PacketFilter(
            .word(receiver), .require(.max), .byte(protocolNumber), .require(17),
            .half(fragment), .masked(0x3fff), .require(0), .indexIPv4Header(packet),
            .indexedHalf(packet), .require(68), .indexedHalf(packet + 2), .require(67), .take)
        return PacketFilter(
            .byte(packet), .masked(0xf0), .require(0x40),
            .ifEqual(at: sender, [0, 0, 0, 0], dhcp),
            .require(at: sender, oneOf: addresses), .take)
    }

    // MARK: IPv6

    /// Types of ICMPv6 (RFC 4861, RFC 3810).
    private static let routerSolicitation: UInt32 = 133, routerAdvertisement: UInt32 = 134
    private static let neighbourSolicitation: UInt32 = 135, neighbourAdvertisement: UInt32 = 136, redirect: UInt32 = 137
    /// Headers.
    private static let hopByHop: UInt32 = 0, fragment: UInt32 = 44, icmp: UInt32 = 58

    /// RFC 8200. Of the extension headers one may be there: hop-by-hop options or a fragment. What is behind others is not looked
    /// for, and dropped.
    private static func internet6(_ addresses: [[UInt8]]) -> PacketFilter {
        let (next, sender) = (packet + 6, packet + 8)
        return PacketFilter(
            .byte(packet), .masked(0xf0), .require(0x60),
            .ifEqual(at: sender, [UInt8](repeating: 0, count: 16), unspecified(addresses)),
            .require(at: sender, oneOf: addresses),
            .byte(next),
            .ifOne(of: icmp, then: control(addresses)),
            .ifOne(
                of: hopByHop, then: PacketFilter(.byte(ip6Payload + 1), .indexExtensionHeader, behindExtension)),
            // The field is reserved in a fragment header, whose length is 8.
            .ifOne(
                of: fragment,
                then: PacketFilter(.byte(ip6Payload + 1), .require(0), .indexExtensionHeader, behindExtension)),
            dropExtensions, .take)
    }

    /// Routing, authentication, destination options, mobility, host identity, shim6.
    private static let dropExtensions = PacketFilter.ifOne(
        of: hopByHop, 43, fragment, 51, 60, 135, 139, 140, then: .drop)

    /// The index is the length of an extension header. Neighbour discovery has none (RFC 6980).
    private static let behindExtension = PacketFilter(
        .byte(ip6Payload), dropExtensions,
        .ifOne(
            of: icmp,
            then: PacketFilter(
                .indexedByte(ip6Payload),
                .ifOne(
                    of: routerSolicitation, routerAdvertisement, neighbourSolicitation, neighbourAdvertisement,
                    redirect,
                    then: .drop),
                .take)),
        .take)

    private static func control(_ addresses: [[UInt8]]) -> PacketFilter {
        PacketFilter(
            .byte(ip6Payload),
            .ifOne(of: routerAdvertisement, redirect, then: .drop),
            .ifOne(of: neighbourAdvertisement, then: target(addresses)),
            .take)
    }

    /// Takes what has an own address as the target of a neighbour solicitation or advertisement.
    private static func target(_ addresses: [[UInt8]]) -> PacketFilter {
        PacketFilter(.require(at: ip6Payload + 8, oneOf: addresses), .take)
    }

    /// From `::`.
    private static func unspecified(_ addresses: [[UInt8]]) -> PacketFilter {
        PacketFilter(
            .byte(packet + 6),
            .ifOne(
                of: icmp,
                then: PacketFilter(
                    .byte(ip6Payload),
                    .ifOne(of: neighbourSolicitation, then: target(addresses)),
                    .require(routerSolicitation), .take)),
            // Multicast listener reports have the router alert option before them.
            .require(hopByHop), .half(ip6Payload), .require(icmp << 8),
            .byte(ip6Payload + 8), .require(131, 132, 143), .take)
    }
}
