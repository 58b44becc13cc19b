import Glibc
import OCISpec
import Testing

extension Containers {
    /// A pod's machine follows its containers' limits while it runs.
    @Suite struct ResizeTests {
        /// A pod with one container.
        private struct Pod {
            let scene: Scene
            let run: Command
            let id: String

            /// - Parameter settings: of the configuration.
            init(_ scene: Scene, _ settings: String) throws {
                self.scene = scene
                id = scene.newID()
                let bundle = try scene.bundle(script: "trap 'exit 0' TERM; echo up; while :; do sleep 1; done")
                run = try scene.start(bundle: bundle, id: id, global: scene.configuration(settings))
                try run.output?.wait(for: "up\n", within: .seconds(60 * Lab.patience))
            }

            func martlet(_ arguments: [String]) throws -> Outcome {
                try Command(Lab.martlet, ["--root", scene.root] + arguments, environment: Lab.environment)
                    .finish(within: .seconds(60 * Lab.patience))
            }

            func update(_ options: String...) throws {
                let outcome = try martlet(["update"] + options + [id])
                try #require(outcome.code == 0, "update \(options): \(outcome.errorText)")
            }

            /// MiB of memory and CPUs, as a program in the container sees them.
            func size() throws -> (memory: Int, cpus: Int) {
                let outcome = try martlet(
                    ["exec", id, "/bin/sh", "-c", "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo; nproc"])
                let numbers = outcome.lines.compactMap { Int($0) }
                try #require(numbers.count == 2, "\(outcome.output) \(outcome.errorText)")
                return (numbers[0], numbers[1])
            }

            /// Waits until the size is as it should be.
            func settle(_ isRight: ((memory: Int, cpus: Int)) -> Bool) throws -> (memory: Int, cpus: Int) {
                let end = ContinuousClock.now + .seconds(20 * Lab.patience)
                var size = try size()
                while !isRight(size), ContinuousClock.now < end { size = try self.size() }
                return size
            }

            func finish() throws {
                run.child.signal(SIGTERM)
                #expect(try run.finish(within: .seconds(60 * Lab.patience)).code == 0)
            }
        }

        private static let hostCPUs = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        private static let settings = "vm.memory_mib = 256\nvm.max_memory_mib = 1024\nvm.max_vcpus = 2\n"

        @Test(.enabled(if: Self.hostCPUs > 1, "the host has one CPU"))
        func theMachineGrowsAndShrinksWithAContainersLimits() throws {
            try Scene.play { scene in
                let pod = try Pod(scene, Self.settings)
                let first = try pod.size()
                #expect(first.memory < 256 && first.cpus == 1)
                try pod.update("--memory", "600M", "--cpu-quota", "150000", "--cpu-period", "100000")
                let grown = try pod.size()
                #expect(grown.memory > first.memory + 380 && grown.cpus == 2, "\(grown)")
                // All of it can be used.
                let filled = try pod.martlet(
                    ["exec", pod.id, "dd", "if=/dev/zero", "of=/dev/null", "bs=450M", "count=1"])
                #expect(filled.code == 0, "\(filled.errorText)")
                let refused = try pod.martlet(["update", "--memory", "2G", pod.id])
                #expect(
                    refused.code != 0
                        && refused.errorText.contains("needs 2112 MiB; it can have 1024 MiB on this host"),
                    "\(refused.errorText)")
                #expect(try pod.size() == grown)
                var taken: [Int] = []
                for _ in 0..<(Lab.everything ? 50 : 2) {
                    try pod.update("--memory", "100M", "--cpu-quota", "50000")
                    let small = try pod.settle { $0.memory < first.memory + 64 && $0.cpus == 1 }
                    #expect(small.memory < first.memory + 64 && small.cpus == 1, "\(small)")
                    taken.append(try scene.memory(ofPod: pod.id))
                    try pod.update("--memory", "600M", "--cpu-quota", "150000")
                    let large = try pod.size()
                    #expect(large.memory > first.memory + 380 && large.cpus == 2, "\(large)")
                }
                // What it took and gave back is the host's again.
                #expect((taken.last ?? 0) < (taken.first ?? 0) + 48, "MiB of the host: \(taken)")
                try pod.finish()
            }
        }

        /// A template of a small machine serves a pod of any size.
        @Test(
            .enabled(if: Lab.driver == .kvm, "the built-in VMM alone has templates"),
            .enabled(if: Self.hostCPUs > 1, "the host has one CPU"))
        func aSmallTemplateGrowsToThePodsLimits() throws {
            try Scene.play { scene in
                let options = try scene.configuration(
                    Self.settings + "template.directory = \"\(scene.directory)/templates\"\n")
                try scene.makeTemplate(options)
                let script =
                    "awk '/MemTotal/ { print ($2 > 560000) }' /proc/meminfo; nproc; dd if=/dev/zero of=/dev/null bs=400M count=1 2>/dev/null; echo $?"
                let bundle = try scene.bundle(script: script) { spec in
                    var resources = Linux.Resources()
                    resources.memory = .init()
                    resources.memory?.limit = 600 << 20
                    var cpu = Linux.Resources.CPU()
                    (cpu.quota, cpu.period) = (200_000, 100_000)
                    resources.cpu = cpu
                    spec.linux?.resources = resources
                }
                let outcome = try scene.run(bundle: bundle, global: options + ["--debug"])
                #expect(outcome.lines == ["1", "2", "0"], "\(outcome.errorText)")
                #expect(outcome.errorText.contains("the machine gets 2 vCPUs and 664 MiB"), "\(outcome.errorText)")
                let list = try Command(
                    Lab.martlet, options + ["template", "list"], environment: Lab.environment
                ).finish(within: .seconds(30 * Lab.patience))
                #expect(list.lines.count == 2, "a title and the only one: \(list.output)")
            }
        }
    }
}
