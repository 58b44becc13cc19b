import FoundationEssentials
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
                // A first process gets a signal only if it has a handler (pid_namespaces(7)).
                let script = "trap 'exit 143' TERM; while :; do sleep 0.1; done"
                let run = try scene.start(bundle: scene.bundle(script: script), id: id)
                // The server writes it at the beginning of a creation.
                try waiting(within: .seconds(30), for: "the launch") {
                    access("\(scene.root)/\(id)/state.json", F_OK) == 0
                }
                usleep(UInt32(50_000 + moment * 100_000) * UInt32(Lab.patience))
                let begin = ContinuousClock.now
                run.child.signal(SIGTERM)
                let outcome = try run.finish(within: .seconds(30))
                let took = ContinuousClock.now - begin
                #expect(took < .seconds(1) * Lab.patience, "took \(took): \(outcome.errorText)")
                #expect(outcome.code == 128 + SIGTERM, "\(outcome.errorText)")
            }
        }

        /// Machine, root file system and network are made side by side: each begins before another has ended.
        @Test func theStepsOfALaunchOverlap() throws {
            try Scene.play { scene in
                let log = "\(scene.directory)/log"
                let outcome = try scene.run(
                    bundle: scene.bundle(args: ["true"]), global: ["--debug", "--log", log, "--log-format", "json"])
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let times = try Self.phases(of: log)
                let steps = try [
                    ("machine begin", "machine spawned"), ("rootfs begin", "rootfs ready"),
                    ("network begin", "network ready"),
                ]
                .map { step in (name: step.0, begin: try #require(times[step.0]), end: try #require(times[step.1])) }
                for step in steps {
                    // The root file system of a directory is there in a moment, perhaps before another step's thread runs.
                    for other in steps where other.name != "rootfs begin" {
                        #expect(step.begin < other.end, "\(step.name), \(other.name): \(times)")
                    }
                }
            }
        }

        /// The times of a start's phases by their names, in nanoseconds, from a log in JSON.
        private static func phases(of log: String) throws -> [String: UInt64] {
            struct Line: Decodable {
                var phase: String?
                var at: String?
            }
            var times: [String: UInt64] = [:]
            for line in (Leftovers.read(log) ?? "").split(separator: "\n") {
                let line = try JSONDecoder().decode(Line.self, from: Data(line.utf8))
                if let phase = line.phase, let time = line.at.flatMap({ UInt64($0) }) { times[phase] = time }
            }
            return times
        }
    }
}
