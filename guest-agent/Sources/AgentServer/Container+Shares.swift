import AgentAPI
import GuestSystem

/// Shares that come and go while the container is there: what the host mounts below a source of its mounts.
extension Container {
    /// Mounts a share below one that the container has.
    ///
    /// - Parameter shares: the directory of the file device's shares.
    func mountShare(_ share: AgentStorage, shares: String) async throws(AgentFailure) {
        let storages = storages
        try await blocking("mount share") { () throws(AgentFailure) in try storages.mountShare(share, shares: shares) }
    }

    /// Takes one away again.
    func unmountShare(_ request: AgentUnmountShareRequest) async throws(AgentFailure) {
        let storages = storages
        try await blocking("unmount share") { () throws(AgentFailure) in
            try storages.unmountShare(request.path, at: request.mountPoint)
        }
    }
}
