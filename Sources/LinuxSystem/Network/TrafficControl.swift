import Glibc

/// Traffic control (tc(8), linux/pkt_cls.h, linux/tc_act/tc_mirred.h): redirects all frames of one link to another.
extension RouteSocket {
    private enum Attribute {
        static let kind: UInt16 = 1, options: UInt16 = 2
    }
    private static let newQdisc: UInt16 = 36, deleteQdisc: UInt16 = 37, getQdisc: UInt16 = 38, newFilter: UInt16 = 44
    private static let ingressHandle: UInt32 = 0xffff_0000, ingressParent: UInt32 = 0xffff_fff1
    private static let headerSize = 20

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

    /// Redirects every frame that arrives at `link` to `target`. The host's protocols get none of them.
    ///
    /// An ingress qdisc that the link has already is replaced, since a link can have only one.
    public func redirect(_ link: Int32, to target: Int32) throws(SystemError) {
        try removeIngress(link)
        var qdisc = Self.message(
            Self.newQdisc, [.acknowledge, .create, .exclusive], link: link, handle: Self.ingressHandle,
            parent: Self.ingressParent)
        qdisc.attribute(Attribute.kind, text: "ingress")
        try perform(qdisc, "add ingress qdisc", "link \(link)")
        // All protocols (ETH_P_ALL, in network order), first priority.
        var filter = Self.message(
            Self.newFilter, [.acknowledge, .create, .exclusive], link: link, handle: 0, parent: Self.ingressHandle,
            information: 1 << 16 | 0x0300)
        filter.attribute(Attribute.kind, text: "u32")
        filter.nested(Attribute.options) { options in
            options.attribute(5, Self.everything)  // TCA_U32_SEL
            options.nested(7) { actions in  // TCA_U32_ACT
                actions.nested(1) { action in
                    action.attribute(1, text: "mirred")  // TCA_ACT_KIND
                    action.nested(2) { $0.attribute(2, Self.redirection(to: target)) }  // TCA_MIRRED_PARMS
                }
            }
        }
        do throws(SystemError) {
            try perform(filter, "add redirect to link \(target)", "link \(link)")
        } catch {
            try? removeIngress(link)
            throw error
        }
    }

    /// A tc_u32_sel with one key that matches every packet, because its mask is 0.
    private static let everything: [UInt8] = {
        var selector = [UInt8](repeating: 0, count: 32)
        selector[0] = 1  // TC_U32_TERMINAL
        selector[2] = 1  // keys
        return selector
    }()

    /// tc_mirred: TCA_EGRESS_REDIR, after which the packet is gone (TC_ACT_STOLEN).
    private static func redirection(to target: Int32) -> [UInt8] {
        var bytes: [UInt8] = []
        for number: Int32 in [0, 0, 4, 0, 0, 1, target] { bytes.append(littleEndian: number) }
        return bytes
    }

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
