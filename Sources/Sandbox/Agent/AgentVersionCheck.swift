import AgentAPI
import AgentContract

extension AgentCreateSandboxResponse {
    /// Refuses an agent that speaks another version of the agent API than this host.
    ///
    /// - Throws: `SandboxError.failed`, which names both versions and what mends it.
    func checkProtocolVersion() throws(SandboxError) {
        if let reason = AgentProtocol.mismatch(agent: protocolVersion, host: AgentProtocol.version) {
            throw .failed(reason)
        }
    }
}
