import AgentAPI
import AgentContract
import Testing

@testable import Sandbox

@Suite struct AgentVersionTests {
    @Test func anAgentOfTheSameVersionIsTaken() throws {
        try AgentCreateSandboxResponse.with { $0.protocolVersion = AgentProtocol.version }.checkProtocolVersion()
    }

    /// An agent that is older than the numbers answers without one.
    @Test(arguments: [(UInt32(0), "an unnumbered version"), (999, "version 999")])
    func anAgentOfAnotherVersionIsRefused(version: UInt32, name: String) {
        let error = #expect(throws: SandboxError.self) {
            try AgentCreateSandboxResponse.with { $0.protocolVersion = version }.checkProtocolVersion()
        }
        #expect(
            error?.description
                == "the guest image's agent speaks \(name) of the agent API, this martlet speaks version "
                + "\(AgentProtocol.version): build the guest anew (make guest)")
    }
}
