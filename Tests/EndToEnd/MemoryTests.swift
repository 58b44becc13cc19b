import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Memory that a pod has used and needs no more goes back to the host.
    @Suite struct MemoryTests {
        /// MiB that the container takes at a time.
        private static let amount = 80

        /// A pod that sleeps, and what it takes of the host.
        private struct Pod {
            let scene: Scene
            let run: Command
            let id: String

            /// - Parameter settings: of the configuration.
            init(_ scene: Scene, _ settings: [String]) throws {
                self.scene = scene
                id = scene.newID()
                let share = try scene.makeDirectory("share")
                let file = try OwnedDescriptor.open("\(share)/file", O_WRONLY | O_CREAT, mode: 0o644)
                try check("ftruncate", "", ftruncate(file.raw, MemoryTests.amount << 20))
                let bundle = try scene.bundle(script: "trap 'exit 0' TERM; echo up; while :; do sleep 1; done") {
                    $0.mounts.append(Mount(destination: "/mnt", type: "bind", source: share, options: ["rbind", "ro"]))
                }
                run = try scene.start(bundle: bundle, id: id, global: settings)
                try run.output?.wait(for: "up\n", within: .seconds(60 * Lab.patience))
            }

            func metrics() throws -> OpenMetrics {
                try OpenMetrics(
                    Command.run(
                        Lab.martlet, ["--root", scene.root, "metrics", "--format", "openmetrics"], within: .seconds(60))
                )
            }

            /// MiB of its processes, the guest's memory among them.
            func memory() throws -> Int { try scene.memory(ofPod: id) }

            /// Runs a command in the container; the most that the pod takes meanwhile, MiB.
            func execute(_ arguments: [String]) throws -> Int {
                let command = try Command(
                    Lab.martlet, ["--root", scene.root, "exec", id] + arguments, environment: Lab.environment)
                let end = ContinuousClock.now + .seconds(120 * Lab.patience)
                var most = try memory()
                while command.child.ended == nil, ContinuousClock.now < end {
                    usleep(50_000)
                    most = max(most, try memory())
                }
                let outcome = try command.finish()
                #expect(outcome.code == 0, "\(outcome.errorText)")
                return most
            }

            /// Waits until the pod takes less than so many MiB; what it takes in the end.
            func settle(below limit: Int, within seconds: Int) throws -> Int {
                let end = ContinuousClock.now + .seconds(seconds * Lab.patience)
                var memory = try memory()
                while memory >= limit, ContinuousClock.now < end {
                    usleep(200_000)
                    memory = try self.memory()
                }
                return memory
            }

            func finish() throws {
                run.child.signal(SIGTERM)
                #expect(try run.finish(within: .seconds(60 * Lab.patience)).code == 0)
            }
        }

        private func takeAndFree(_ pod: Pod) throws {
            // A process whose memory is free when it has ended, and a file that stays in the guest's page cache.
            for command in [
                ["dd", "if=/dev/zero", "of=/dev/null", "bs=\(Self.amount)M", "count=1"],
                ["dd", "if=/mnt/file", "of=/dev/null", "bs=1M"],
            ] {
                let before = try pod.memory()
                let peak = try pod.execute(command)
                #expect(peak > before + Self.amount / 2, "\(command): from \(before) MiB to \(peak)")
                let after = try pod.settle(below: before + Self.amount / 4, within: 30)
                #expect(after < before + Self.amount / 4, "\(command): \(before) MiB, \(peak), \(after)")
            }
        }

        private static let settings = "vm.memory_mib = 224\nmemory.idle_s = 2\nmemory.floor_mib = 8\n"

        /// In the lab each MiB of the balloon is exits of milliseconds.
        @Test(.enabled(if: Lab.driver != .kvm || Lab.everything, Lab.isLong))
        func whatAPodNeedsNoMoreGoesBack() throws {
            try Scene.play { scene in
                let pod = try Pod(scene, scene.configuration(Self.settings))
                try takeAndFree(pod)
                var metrics = try pod.metrics()
                let end = ContinuousClock.now + .seconds(20 * Lab.patience)
                while metrics.value("martlet_guest_balloon_bytes") != 0, ContinuousClock.now < end {
                    usleep(100_000)
                    metrics = try pod.metrics()
                }
                #expect(metrics.value("martlet_memory_reclaims_total") ?? 0 >= 1)
                #expect(metrics.value("martlet_memory_reclaimed_bytes_total") ?? 0 >= 5e7)
                #expect(metrics.value("martlet_guest_balloon_bytes") == 0, "it is emptied again")
                #expect(metrics.value("martlet_guest_balloon_statistic_bytes", ["kind": "free"]) ?? 0 > 5e7)
                if Lab.driver == .kvm {
                    #expect(metrics.value("martlet_guest_memory_reported_bytes_total") ?? 0 > 5e7)
                }
                try pod.finish()
            }
        }

        /// A machine whose memory is a template's file, mapped privately.
        @Test(
            .enabled(if: Lab.driver == .kvm, "the built-in VMM alone has templates"),
            .enabled(if: Lab.everything, Lab.isLong))
        func whatAPodFromATemplateNeedsNoMoreGoesBack() throws {
            try Scene.play { scene in
                let options = try scene.configuration(
                    Self.settings + "template.directory = \"\(scene.directory)/templates\"\n")
                try scene.makeTemplate(options)
                let pod = try Pod(scene, options)
                try takeAndFree(pod)
                #expect(try pod.metrics().value("martlet_pod_info", ["start": "template"]) == 1)
                try pod.finish()
                // The template is what it was.
                let again = try Command(Lab.martlet, options + ["template", "check"], environment: Lab.environment)
                    .finish(within: .seconds(120 * Lab.patience))
                #expect(again.code == 0, "\(again.errorText)")
            }
        }

        @Test(.enabled(if: Lab.everything, Lab.isLong)) func whatIsNotToGoBackStays() throws {
            try Scene.play { scene in
                let off = "memory.idle_s = 1\nmemory.reporting = false\nmemory.reclaim = false\n"
                let pod = try Pod(scene, scene.configuration(off))
                let before = try pod.memory()
                _ = try pod.execute(["dd", "if=/dev/zero", "of=/dev/null", "bs=\(Self.amount)M", "count=1"])
                sleep(8)
                #expect(try pod.memory() > before + Self.amount * 3 / 4)
                try pod.finish()
            }
        }
    }
}
