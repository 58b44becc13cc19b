import CRIAPI
import Glibc

/// The figures of one pod: times in milliseconds, memory in KiB.
struct PodRun: Sendable {
    var sandbox = 0.0
    var create = 0.0
    var start = 0.0
    var end = 0.0
    var memory = ProcessMemory(process: "")
}

/// Starts and ends pods with one container that sleeps.
struct PodStarter: Sendable {
    let client: CRIClient
    let image: String
    let timeout: Duration

    struct Pod: Sendable {
        var sandbox: String
        var times: PodRun
    }

    /// - Parameter name: unique for each pod.
    func start(_ handler: String, _ name: String) async throws -> Pod {
        let config = CRIPodSandboxConfig.with {
            $0.metadata = .with {
                $0.name = "martlet-bench-\(handler)-\(name)"
                $0.namespace = "martlet-bench"
                $0.uid = "\(getpid())-\(handler)-\(name)"
            }
        }
        var run = PodRun()
        let sandbox = try await timed(&run.sandbox) {
            try await client.runPodSandbox(
                .with {
                    $0.config = config
                    $0.runtimeHandler = handler
                }, within: timeout
            ).podSandboxID
        }
        do {
            let container = try await timed(&run.create) {
                try await client.createContainer(
                    .with {
                        $0.podSandboxID = sandbox
                        $0.sandboxConfig = config
                        $0.config.metadata.name = "sleep"
                        $0.config.image.image = image
                        $0.config.command = ["sleep", "100000"]
                    }, within: timeout
                ).containerID
            }
            try await timed(&run.start) { try await client.startContainer(container, within: timeout) }
        } catch {
            await end(sandbox)
            throw error
        }
        return Pod(sandbox: sandbox, times: run)
    }

    func remove(_ sandbox: String) async throws {
        try await client.stopPodSandbox(sandbox, within: timeout)
        try await client.removePodSandbox(sandbox, within: timeout)
    }

    /// Removes the pod in whatever state it is. Errors are ignored; the engine cleans up.
    func end(_ sandbox: String) async { try? await remove(sandbox) }

    private func timed<Result>(_ milliseconds: inout Double, _ body: () async throws -> Result) async throws -> Result {
        let begin = ContinuousClock.now
        let result = try await body()
        milliseconds = (ContinuousClock.now - begin) / .milliseconds(1)
        return result
    }
}
