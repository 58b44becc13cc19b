import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// kill -9 of what stands between docker and a container, and lives one after the other.
    @Suite(.enabled(if: Docker.obstacle == nil, "\(Docker.obstacle ?? "")"))
    struct DockerFaultTests {
        /// Counted as `Scene` counts, and the open files of dockerd and its containerd.
        @Test func livesLeaveNothing() throws {
            try Docker.play { docker, scene in
                let daemons = try [#require(docker.pid), #require(docker.containerd)]
                func openFiles() -> Int { daemons.map { Leftovers.list("/proc/\($0)/fd").count }.reduce(0, +) }
                var first = 0
                for life in 0..<(Lab.everything ? 25 : 2) {
                    for runtime in Docker.Runtime.allCases {
                        let name = scene.newID()
                        try docker.succeed(
                            "run", "-d", "--runtime", runtime.rawValue, "--name", name, Docker.image, "sleep", "1000")
                        #expect(try docker.succeed("exec", name, "echo", "hi") == "hi\n")
                        try docker.succeed("kill", name)
                        #expect(try docker.succeed("wait", name).trimmed == "137")
                        try docker.succeed("rm", name)
                        #expect(docker.settledLeftovers() == [])
                    }
                    if life == 0 { first = openFiles() }
                }
                let end = ContinuousClock.now + .seconds(10)
                while openFiles() > first, ContinuousClock.now < end { usleep(100_000) }
                #expect(openFiles() <= first)
            }
        }

        enum Victim: String, CaseIterable, Sendable {
            case dockerd
            /// containerd's shim of runc, or Martlet's, which is the pod's server too.
            case shim
            case container, server
        }

        @Test(arguments: Docker.Runtime.allCases) func killedProcessesAreTold(_ runtime: Docker.Runtime) throws {
            let all = EngineStep.allCases.flatMap { step in Victim.allCases.map { (step, $0) } }
            let some: [(EngineStep, Victim)] =
                switch runtime {
                case .shim: [(.exec, .dockerd)]
                case .commandLine: [(.create, .shim), (.start, .server), (.exec, .dockerd), (.kill, .container)]
                }
            try Docker.play(runtime: runtime) { docker, scene in
                for (step, victim) in Lab.everything ? all : some {
                    // The shim makes and starts at once; it has no other server.
                    if runtime == .shim, step == .start || victim == .server { continue }
                    do { try kill(victim, at: step, docker, scene, runtime) } catch {
                        Issue.record("\(step), \(victim): \(error)")
                    }
                }
            }
        }

        private func kill(
            _ victim: Victim, at step: EngineStep, _ docker: Docker, _ scene: Scene, _ runtime: Docker.Runtime
        ) throws {
            let fault = try EngineFault(docker, scene)
            let shim = runtime == .shim ? "containerd-shim-martlet-v2" : "containerd-shim-runc-v2"
            func strike() throws {
                switch victim {
                case .dockerd:
                    if step == .create { _ = try fault.process(shim, fault.id) }
                    try docker.kill()
                case .shim: Glibc.kill(try fault.process(shim, fault.id), SIGKILL)
                case .container: Glibc.kill(try fault.container(), SIGKILL)
                case .server: Glibc.kill(try fault.process("pod-server \(fault.id)"), SIGKILL)
                }
            }
            // A command that waits for an exec is not told that the shim has died, with runc neither.
            try fault.play(step, creation: "start", endsExec: victim != .shim, strike: strike) {
                if victim == .dockerd { try docker.start() }
            }
        }
    }
}
