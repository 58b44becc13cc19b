import Glibc
import LinuxSystem
import Testing

extension Containers.NetworkTests {
    /// What a container with CAP_NET_RAW can send in others' names.
    @Suite struct SourceFilterTests {
        /// A frame, and the text in it by which it is known on the host.
        private struct Frame {
            var mark: String
            var hex: String

            init(_ mark: String, from hardware: String, type: String, _ header: String) {
                self.mark = mark
                let text = "frame \(mark).".utf8.map { hexadecimal($0) }.joined()
                hex = "ffffffffffff\(hardware)\(type)\(header)\(text)"
            }
        }

        private static let other = "020000006666"

        /// A packet of IPv4 to 10.99.0.1, as UDP.
        private static func internet4(_ source: String) throws -> String {
            let bytes = try #require(IPAddress(source)).bytes
            return "4500004000000000401100" + "00" + bytes.map { hexadecimal($0) }.joined() + "0a630001"
                + "1000100000000000"
        }

        /// An ARP reply that gives 10.99.0.1 the sender's hardware address.
        private static func reply(_ hardware: String) -> String {
            "0001080006040002" + hardware + "0a630001" + "ffffffffffff" + "0a630002"
        }

        @Test(arguments: [true, false]) func othersNames(isFiltered: Bool) throws {
            let tests = Containers.NetworkTests()
            try tests.play { scene, net in
                let pod = try net.pod()
                try net.connect(pod, number: 2)
                let text = try Command.shell("ip netns exec \(pod) cat /sys/class/net/eth0/address")
                let own = text.filter(\.isHexDigit)
                let (mine, others) = (try Self.internet4("10.99.0.2"), try Self.internet4("10.99.0.66"))
                let forged = [
                    Frame("hardware", from: Self.other, type: "0800", mine),
                    Frame("address", from: own, type: "0800", others),
                    Frame("arp", from: own, type: "0806", Self.reply(own)),
                    Frame("vlan", from: own, type: "81000005" + "0800", mine),
                    Frame("protocol", from: own, type: "88b5", ""),
                ]
                let true1 = Frame("true", from: own, type: "0800", mine)
                let later = Frame("later", from: own, type: "0800", others)
                let script = """
                    ping -c 1 -W 5 10.99.0.1 >/dev/null && echo v4; ping -c 1 -W 5 fd99::1 >/dev/null && echo v6
                    frames eth0 \((forged + [true1]).map(\.hex).joined(separator: " ")) && echo sent
                    until ip addr show eth0 | grep -q 10.99.0.66/; do sleep 0.05; done
                    frames eth0 \(later.hex) && echo again; read line
                    """
                let bundle = try tests.bundle(scene, in: pod, script)
                try Program.install("frames", in: bundle)
                let listener = try Listener(net.host)
                let settings = try scene.configuration("network.source_filter = \(isFiltered)")
                let run = try scene.start(bundle: bundle, global: settings, input: .pipe)
                try run.output?.wait(for: "v4\nv6\nsent\n")
                // They come in the order in which they were sent.
                let first = try listener.marks(upTo: "true", among: forged + [true1, later])
                #expect(first == (isFiltered ? ["true"] : Set(forged.map(\.mark) + ["true"])))
                try Command.run("ip", ["-n", pod, "addr", "add", "10.99.0.66/24", "dev", "eth0"])
                try run.output?.wait(for: "again\n")
                #expect(try listener.marks(upTo: "later", among: forged + [later]) == ["later"])
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
                #expect(try net.traces(pod).isEmpty)
            }
        }

        /// Gathers the frames of a namespace.
        private struct Listener {
            private let socket: SharedDescriptor

            init(_ namespace: String) throws {
                let namespace = try NetworkNamespace(path: Net.path(namespace))
                socket = try namespace.run { () throws(SystemError) in
                    let all = Int32(UInt16(3).bigEndian)  // ETH_P_ALL
                    let raw = Glibc.socket(AF_PACKET, Int32(SOCK_RAW.rawValue), all)
                    return SharedDescriptor(OwnedDescriptor(owning: try check("socket", "AF_PACKET", raw)))
                }
                try socket.setNonBlocking(true)
            }

            /// The marks that come until `last` does.
            func marks(upTo last: String, among frames: [Frame]) throws -> Set<String> {
                var found: Set<String> = []
                try waiting(within: .seconds(20), for: "frame \(last), after \(found)") {
                    var buffer = [UInt8](repeating: 0, count: 2048)
                    while true {
                        let count = recv(socket.raw, &buffer, buffer.count, 0)
                        if count <= 0 { return found.contains(last) }
                        let bytes = buffer.prefix(count)
                        found.formUnion(frames.map(\.mark).filter { bytes.firstRange(of: "frame \($0).".utf8) != nil })
                    }
                }
                return found
            }
        }
    }
}

private func hexadecimal(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }
