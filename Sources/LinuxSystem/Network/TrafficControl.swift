import Glibc

/// Traffic control (tc(8), linux/pkt_cls.h, linux/tc_act/tc_mirred.h): redirects the frames of one link to another.
extension RouteSocket {
    private enum Attribute {
        static let kind: UInt16 = 1, options: UInt16 = 2
    }
    private static let newQdisc: UInt16 = 36, deleteQdisc: UInt16 = 37, getQdisc: UInt16 = 38, newFilter: UInt16 = 44
    private static let ingressHandle: UInt32 = 0xffff_0000, ingressParent: UInt32 = 0xffff_fff1
    private static let headerSize = 20
    /// BPF_MAXINSNS.
    private static let longestProgram = 4096

    private static func message(
        _ type: UInt16, _ flags: NetlinkMessage.Flags, link: Int32, handle: UInt32, parent: UInt32,
        information: UInt32 = 0
    ) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags)
        message.put(UInt32(0))  // family, padding
        message.put(link)
        message.put(handle)
        message.put(parent)
        message.put(information)
        return message
    }

    /// Redirects the frames that arrive at `link` to `target`. The host's protocols get none of them.
    ///
    /// An ingress qdisc that the link has already is replaced, since a link can have only one.
    ///
    /// - Parameter filter: which frames; the others are dropped. nil: all.
    public func redirect(_ link: Int32, to target: Int32, filter: PacketFilter? = nil) throws(SystemError) {
        try removeIngress(link)
        var qdisc = Self.message(
            Self.newQdisc, [.acknowledge, .create, .exclusive], link: link, handle: Self.ingressHandle,
            parent: Self.ingressParent)
        qdisc.attribute(Attribute.kind, text: "ingress")
        try perform(qdisc, "add ingress qdisc", "link \(link)")
        do throws(SystemError) {
            if let filter {
                try dropAll(link)
                try setFilter(filter, ofRedirectFrom: link, to: target)
            } else {
                try redirectAll(link, to: target)
            }
        } catch {
            try? removeIngress(link)
            throw error
        }
    }

    /// Replaces the filter of a redirection that was made with one. No frame passes unfiltered meanwhile.
    public func setFilter(
        _ filter: PacketFilter, ofRedirectFrom link: Int32, to target: Int32
    ) throws(SystemError) {
        guard filter.count <= Self.longestProgram else {
            throw SystemError(
                "add filter", "link \(link): \(filter.count) instructions, at most \(Self.longestProgram)",
                errno: .messageTooLong)
        }
        var message = Self.filter(link, priority: 1, handle: 1, .create)
        message.attribute(Attribute.kind, text: "bpf")
        message.nested(Attribute.options) { options in
            options.redirect(1, to: target)  // TCA_BPF_ACT
            options.program(filter)
        }
        try perform(message, "add filter (cls_bpf) of the redirect to link \(target)", "link \(link)")
    }

    /// Drops what no filter of a higher priority has redirected.
    private func dropAll(_ link: Int32) throws(SystemError) {
        var message = Self.filter(link, priority: 2, handle: 1, [.create, .exclusive])
        message.attribute(Attribute.kind, text: "bpf")
        message.nested(Attribute.options) { options in
            options.program(.returning(2))  // TC_ACT_SHOT
            options.attribute(8, UInt32(1))  // TCA_BPF_FLAGS: what the program returns is what is done
        }
        try perform(message, "add filter (cls_bpf) that drops all", "link \(link)")
    }

    private func redirectAll(_ link: Int32, to target: Int32) throws(SystemError) {
        var message = Self.filter(link, priority: 1, handle: 0, [.create, .exclusive])
        message.attribute(Attribute.kind, text: "u32")
        message.nested(Attribute.options) { options in
            options.attribute(5, Self.everything)  // TCA_U32_SEL
            options.redirect(7, to: target)  // TCA_U32_ACT
        }
        try perform(message, "add redirect to link \(target)", "link \(link)")
    }

    /// A message about a filter of an ingress qdisc, for all protocols (ETH_P_ALL, in network order).
    private static func filter(
        _ link: Int32, priority: UInt32, handle: UInt32, _ flags: NetlinkMessage.Flags
    ) -> NetlinkMessage {
        message(
            newFilter, flags.union(.acknowledge), link: link, handle: handle, parent: ingressHandle,
            information: priority << 16 | 0x0300)
    }

    /// A tc_u32_sel with one key that matches every packet, because its mask is 0.
    private static let everything: [UInt8] = {
        var selector = [UInt8](repeating: 0, count: 32)
        selector[0] = 1  // TC_U32_TERMINAL
        selector[2] = 1  // keys
        return selector
    }()

    /// Removes the ingress qdisc of a link, with its filters. It is not an error when the link or the qdisc is already gone.
    public func removeIngress(_ link: Int32) throws(SystemError) {
        do throws(SystemError) {
            try perform(
                Self.message(
                    Self.deleteQdisc, .acknowledge, link: link, handle: Self.ingressHandle, parent: Self.ingressParent),
                "remove ingress qdisc", "link \(link)")
        } catch {
            switch error.errno {
            case .noSuchFileOrDirectory, .noSuchDevice, .invalidArgument: break
            default: throw error
            }
        }
    }

    /// The links that have an ingress qdisc.
    public func ingressLinks() throws(SystemError) -> [Int32] {
        let message = Self.message(Self.getQdisc, .dump, link: 0, handle: 0, parent: 0)
        return try exchange(message, "list", "qdiscs").filter {
            $0.type == Self.newQdisc && $0.attributes(after: Self.headerSize).text(Attribute.kind) == "ingress"
        }.map { $0.payload.number(4, Int32.self) }
    }
}

extension NetlinkMessage {
    /// Adds a list with one action: a tc_mirred, TCA_EGRESS_REDIR, after which the packet is gone (TC_ACT_STOLEN).
    fileprivate mutating func redirect(_ type: UInt16, to target: Int32) {
        var parameters: [UInt8] = []
        for number: Int32 in [0, 0, 4, 0, 0, 1, target] { parameters.append(littleEndian: number) }
        nested(type) { actions in
            actions.nested(1) { action in
                action.attribute(1, text: "mirred")  // TCA_ACT_KIND
                action.nested(2) { $0.attribute(2, parameters) }  // TCA_MIRRED_PARMS
            }
        }
    }

    /// Adds the program of a bpf classifier.
    fileprivate mutating func program(_ filter: PacketFilter) {
        attribute(4, UInt16(filter.count))  // TCA_BPF_OPS_LEN
        attribute(5, filter.bytes)  // TCA_BPF_OPS
    }
}
