import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Machines that are ready before there are pods for them. The built-in VMM alone has templates, from which they are restored.
    @Suite struct PoolTests {
        private static let needsKVM: Comment =
            "the driver under test is not the built-in VMM, which alone has templates"

        /// What `martlet pool list --json` says.
        private struct Member: Decodable {
            var pid: Int32
            var vcpus: Int
        }

        /// What `martlet pod list --json` says.
        private struct Pod: Decodable {
            var id: String
            var template: String?
            var isFromPool: Bool
        }

        /// A pool of a scene's own.
        private struct Pool {
            let scene: Scene
            let settings: String
            let options: [String]
            var directory: String { "\(scene.directory)/pool" }

            init(_ scene: Scene, _ settings: String = "") throws {
                self.scene = scene
                self.settings = """
                    template.directory = "\(scene.directory)/templates"
                    pool.directory = "\(scene.directory)/pool"
                    \(settings)
                    """
                options = try scene.configuration(self.settings)
            }

            func martlet(_ arguments: String...) throws -> Outcome {
                try Command(Lab.martlet, options + arguments, environment: Lab.environment)
                    .finish(within: .seconds(120 * Lab.patience))
            }

            func fill(_ count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
                let outcome = try martlet("pool", "fill", "--count", "\(count)")
                try #require(
                    outcome.code == 0 && outcome.text == "\(count)\n", "\(outcome.errorText)",
                    sourceLocation: sourceLocation)
            }

            func members() throws -> [Member] {
                try JSONDecoder().decode([Member].self, from: Data(martlet("pool", "list", "--json").text.utf8))
            }

            /// Waits until so many are ready.
            func wait(for count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
                let limit = ContinuousClock.now + .seconds(20 * Lab.patience)
                while try members().count != count, ContinuousClock.now < limit { usleep(100_000) }
                #expect(try members().count == count, sourceLocation: sourceLocation)
            }

            func drain() throws {
                #expect(try martlet("pool", "drain").code == 0)
                try wait(for: 0)
                let limit = ContinuousClock.now + .seconds(5 * Lab.patience)
                while !Leftovers.list(directory).isEmpty, ContinuousClock.now < limit { usleep(50_000) }
                #expect(Leftovers.list(directory).isEmpty)
            }

            /// Runs a container that says where its machine is from.
            func run(_ script: String = "echo in", isPooled: Bool, sourceLocation: SourceLocation = #_sourceLocation)
                throws -> Outcome
            {
                let bundle = try scene.bundle(script: "echo up; read line; \(script)")
                let run = try Command(
                    Lab.martlet, scene.runArguments(bundle: bundle, global: options), input: .pipe, errors: .pipe,
                    environment: Lab.environment)
                try run.output?.wait(for: "up\n")
                let text = try Command.run(Lab.martlet, ["--root", scene.root, "pod", "list", "--json"])
                let pods = try JSONDecoder().decode([Pod].self, from: Data(text.utf8))
                #expect(pods.map(\.isFromPool) == [isPooled], sourceLocation: sourceLocation)
                #expect(pods.first?.template != nil, sourceLocation: sourceLocation)
                _ = run.input?.write("\n")
                let outcome = try run.finish(within: .seconds(60))
                #expect(outcome.code == 0, "\(outcome.errorText)", sourceLocation: sourceLocation)
                return outcome
            }
        }

        /// Two pods take the machines that are ready, are not alike, and have the right time; the third has one of its own.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func podsTakeMachinesThatAreReady() throws {
            try Scene.play { scene in
                let pool = try Pool(scene)
                try pool.fill(2)
                #expect(try pool.members().map(\.vcpus) == [1, 1])
                // Meanwhile their clocks stand still.
                sleep(3)
                let script = "cat /proc/sys/kernel/random/boot_id; head -c 64 /dev/urandom | md5sum; date +%s"
                let outcomes = try (0..<2).map { _ in
                    let outcome = try pool.run(script, isPooled: true)
                    try #require(outcome.lines.count == 4, "\(outcome.text)")
                    #expect(abs((Int(outcome.lines[3]) ?? 0) - time(nil)) <= 2 * Lab.patience)
                    return outcome
                }
                for line in 1...2 { #expect(outcomes[0].lines[line] != outcomes[1].lines[line]) }
                #expect(try pool.members().isEmpty)
                _ = try pool.run(isPooled: false)
                #expect(Leftovers.list(pool.directory).isEmpty)
            }
        }

        /// The machine is replaced that a pod has taken; nobody else's is taken; a drained pool leaves nothing.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func thePoolIsFilledAgain() throws {
            try Scene.play { scene in
                let pool = try Pool(scene, "pool.size = 1")
                let larger = try Pool(scene, "vm.vcpus = 2")
                try pool.fill(1)
                let first = try pool.members().map(\.pid)
                let other = try scene.run(
                    bundle: scene.bundle(script: "nproc"), global: larger.options)
                #expect(other.code == 0 && other.text == "2\n", "\(other.errorText)")
                #expect(try pool.members().map(\.pid) == first)
                _ = try pool.run(isPooled: true)
                try pool.wait(for: 1)
                #expect(try pool.members().map(\.pid) != first)
                try pool.drain()
            }
        }

        /// A server of the pool that is killed takes its machine with it, and the next pod has another one. A command that is killed
        /// takes its pod with it, wherever its machine is from.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func killedProcessesLeaveNothing() throws {
            try Scene.play { scene in
                let pool = try Pool(scene)
                try pool.fill(1)
                let member = try #require(try pool.members().first)
                kill(member.pid, SIGKILL)
                _ = try pool.run(isPooled: false)
                #expect(Leftovers.list(pool.directory).isEmpty)

                try pool.fill(1)
                let run = try scene.start(
                    bundle: scene.bundle(script: "echo up; sleep 1000"), global: pool.options)
                try run.output?.wait(for: "up\n")
                #expect(try pool.members().isEmpty)
                run.child.signal(SIGKILL)
                _ = try run.finish(within: .seconds(10))

                try pool.fill(1)
                let fill = try Command(
                    Lab.martlet, pool.options + ["pool", "fill", "--count", "3"], environment: Lab.environment)
                usleep(300_000)
                fill.child.signal(SIGKILL)
                _ = try fill.finish(within: .seconds(10))
                try pool.fill(2)
                try pool.drain()
            }
        }

        @Test(.enabled(if: Lab.driver == .qemu, "QEMU alone refuses pools"))
        func qemuRefusesPools() throws {
            try Scene.play { scene in
                let pool = try Pool(scene, "pool.size = 2")
                let filled = try pool.martlet("pool", "fill")
                #expect(filled.code == 1 && filled.errorText.contains("a template with qemu"), "\(filled.errorText)")
                let outcome = try scene.run(bundle: scene.bundle(script: "echo in"), global: pool.options)
                #expect(outcome.code == 0 && outcome.text == "in\n", "\(outcome.errorText)")
                #expect(Leftovers.list(pool.directory).isEmpty)
            }
        }
    }
}
