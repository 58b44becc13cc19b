import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What happens while a pod is being launched.
    @Suite struct LaunchTests {
        /// A kill at ten moments of a launch, from its first steps until the container runs.
        @Test(arguments: 0..<10) func aKillEndsALaunch(_ moment: Int) throws {
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(bundle: scene.bundle(args: ["sleep", "1000"]), id: id)
                // The server writes it at the beginning of a creation.
                try waiting(within: .seconds(30), for: "the launch") {
                    access("\(scene.root)/\(id)/state.json", F_OK) == 0
                }
                usleep(UInt32(50_000 + moment * 130_000) * UInt32(Lab.patience))
                let begin = ContinuousClock.now
                run.child.signal(SIGTERM)
                let outcome = try run.finish(within: .seconds(30))
                let took = ContinuousClock.now - begin
                #expect(took < .seconds(1) * Lab.patience, "took \(took): \(outcome.errorText)")
                #expect(outcome.code == 128 + SIGTERM, "\(outcome.errorText)")
            }
        }
    }
}
