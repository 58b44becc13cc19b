import Glibc
import LinuxSystem

/// A checkpoint of a pod that another one starts from, while the pod stands still and what it has on the host is copied.
extension Pod {
    /// Pauses all containers of the pod and writes a checkpoint of them. They go on when a byte comes on `holder`, or its other end closes;
    /// with its end the checkpoint is removed too.
    ///
    /// - Parameters:
    ///   - scope: what is asked for.
    ///   - path: of the checkpoint's directory, absolute.
    ///   - holder: a socket, whose other end whoever makes the copy has.
    /// - Throws: as `checkpoint`; the containers go on then.
    package func checkpoint(_ scope: CheckpointScope, to path: String, heldBy holder: SharedDescriptor) async throws {
        var paused: [String] = []
        do {
            for id in containers.keys.sorted() where containers[id]?.first.phase == .running {
                try await pause(id)
                paused.append(id)
            }
            try await checkpoint(scope, to: path, isLeftRunning: true, isTemporary: true)
            let ids = paused
            try startThread("checkpoint holder", stackSize: 64 << 10) {
                var byte: UInt8 = 0
                let wait = { (try? retrying("read", "checkpoint holder") { read(holder.raw, &byte, 1) }) ?? 0 }
                _ = wait()
                Task { await self.release(ids) }
                while wait() > 0 {}
                Task { await self.removeTemporary(path) }
            }
        } catch {
            await release(paused)
            await removeTemporary(path)
            throw error
        }
    }

    /// Has containers go on, unless somebody else has had them go on meanwhile.
    private func release(_ ids: [String]) async {
        for id in ids where containers[id]?.first.phase == .paused {
            do { try await resume(id) } catch { logger.warning("container \(id) does not go on: \(error)") }
        }
    }

    private func removeTemporary(_ path: String) async {
        let directory = environment.directory
        let records = (try? await onThread("state") { directory.read()?.checkpoints ?? [] }) ?? []
        for record in records where record.path == path && record.isTemporary {
            _ = try? await onThread("checkpoint") { record.remove() }
            try? await forget(record)
        }
    }
}
