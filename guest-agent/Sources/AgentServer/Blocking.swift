import GuestSystem
import LinuxSystem

/// Runs `body`, which blocks, on a thread of its own and suspends until it is done.
func blocking<R: Sendable>(
    _ name: String, _ body: @Sendable @escaping () throws(AgentFailure) -> R
) async throws(AgentFailure) -> R {
    let result: Result<R, AgentFailure> = await withCheckedContinuation { continuation in
        do {
            try startThread(name) {
                do throws(AgentFailure) {
                    continuation.resume(returning: .success(try body()))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        } catch {
            continuation.resume(returning: .failure(AgentFailure(error)))
        }
    }
    return try result.get()
}
