import AgentContract
import Testing

@Suite struct AgentContractTests {
    @Test(arguments: [
        ("console=hvc0 martlet.doorbell=0xb80 quiet\n", UInt16(0xb80)), ("martlet.doorbell=2944", 2944),
        ("martlet.doorbell=1 martlet.doorbell=2", 2), ("console=hvc0\n", nil), ("martlet.doorbell=", nil),
        ("martlet.doorbell=0x10000", nil), ("martlet.doorbell=x", nil), ("xmartlet.doorbell=1", nil),
        ("martlet.doorbells=1", nil), ("", nil),
    ]) func theDoorbellIsReadFromTheCommandLine(line: String, port: UInt16?) {
        #expect(AgentDoorbell.port(in: line) == port)
    }

    @Test func theKernelArgumentNamesThePort() {
        #expect(AgentDoorbell.kernelArgument == "martlet.doorbell=0xb80")
        #expect(AgentDoorbell.port(in: AgentDoorbell.kernelArgument) == AgentDoorbell.port)
    }

    @Test func versionsThatDifferAreNamed() {
        #expect(AgentProtocol.mismatch(agent: 4, host: 4) == nil)
        #expect(
            AgentProtocol.mismatch(agent: 3, host: 4)
                == "the guest image's agent speaks version 3 of the agent API, this martlet speaks version 4: "
                + "build the guest anew (make guest)")
        #expect(AgentProtocol.mismatch(agent: 0, host: 1)?.contains("an unnumbered version") == true)
    }

    @Test func loopbackConnectionsHaveNumbersOfTheirOwn() {
        #expect(StreamNumber.loopbackPort(StreamNumber.loopback(port: 0)) == 0)
        #expect(StreamNumber.loopbackPort(StreamNumber.loopback(port: 65535)) == 65535)
        let own = StreamNumber.loopback(port: 65535, address: 0xff00_0001)
        #expect(StreamNumber.loopbackPort(own) == 65535 && StreamNumber.loopbackAddress(own) == 0xff00_0001)
        #expect(StreamNumber.targetConnection(of: own) == nil)
        #expect(StreamNumber.loopbackAddress(StreamNumber.loopback(port: 65535)) == 0)
        #expect(StreamNumber.loopbackPort(1) == nil)
        #expect(StreamNumber.loopbackPort(1 << 63 - 1) == nil)
    }

    @Test func allPathsLieBelowTheBase() {
        for path in [
            GuestPath.shares, GuestPath.volumes, GuestPath.sandboxNamespaces, GuestPath.rootfs(of: "c"),
            GuestPath.mount(2, of: "c"),
        ] { #expect(path.hasPrefix(GuestPath.base + "/")) }
    }
}
