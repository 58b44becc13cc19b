/// Disks that stand still, for a copy of what is on them.
extension Pod {
    /// Has the file systems on the pod's disks write what they have, and stand still. Containers that write there wait.
    ///
    /// - Parameter limit: after this they go on by themselves, whole seconds.
    /// - Throws: `SandboxError.wrongState` where the pod has no disk that can be written.
    package func freezeDisks(for limit: Duration) async throws {
        try await withRunning { pod in
            guard try await pod.agent.freezeDisks(for: limit) > 0 else {
                throw SandboxError.wrongState("pod \(environment.id) has no disk that can be written")
            }
        }
    }

    /// Has them go on.
    ///
    /// - Returns: whether they stood still until now.
    package func thawDisks() async throws -> Bool { try await withRunning { try await $0.agent.thawDisks() } }
}
