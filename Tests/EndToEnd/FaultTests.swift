import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Whatever dies, `martlet run` ends within 2 s (an agent that hangs, or emulated guests: 5 s) with exit code 255 and a message that names the cause.
    @Suite struct FaultTests {
        /// What may pass between the harm and the command's end; an emulated guest needs longer to say its last words.
        private static let limit = Duration.seconds(Lab.driver == .kvm ? 2 : 5) * Lab.patience

        /// Runs a container that says "up", does `harm`, and waits for the end.
        private func end(
            script: String = "echo up; while :; do sleep 1; done", edit: (inout Spec) -> Void = { _ in },
            harm: (Scene, String) throws -> Void = { _, _ in }
        ) throws -> Outcome {
            var result: Outcome?
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(bundle: scene.bundle(script: script, edit: edit), id: id)
                try run.output?.wait(for: "up\n")
                let begin = ContinuousClock.now
                try harm(scene, id)
                let outcome = try run.finish(within: .seconds(30))
                let took = ContinuousClock.now - begin
                #expect(took < Self.limit, "took \(took): \(outcome.errorText)")
                #expect(outcome.code == 255, "\(outcome.errorText)")
                result = outcome
            }
            return try #require(result)
        }

        /// The pid of a process of the pod, as the state directory has it.
        private func pid(_ name: String, _ scene: Scene, _ id: String) throws -> Int32 {
            try Leftovers.process(name, in: "\(scene.root)/\(id)/state.json")
        }

        private func killing(_ name: String) throws -> Outcome {
            try end(harm: { scene, id in
                let victim = try pid(name, scene, id)
                #expect(kill(victim, SIGKILL) == 0)
            })
        }

        @Test func aKernelPanicIsNamed() throws {
            // The trigger is read-only in a container as specifications are written; here it is not.
            let script = "echo up; sleep 0.2; echo c >/proc/sysrq-trigger; sleep 100"
            let outcome = try end(
                script: script,
                edit: { spec in
                    spec.linux?.readonlyPaths = []
                    spec.linux?.maskedPaths = []
                })
            #expect(outcome.errorText.contains("the guest crashed: Kernel panic"), "\(outcome.errorText)")
            #expect(outcome.errorText.contains("sysrq triggered crash"), "\(outcome.errorText)")
            #expect(outcome.errorText.contains("last console lines"), "\(outcome.errorText)")
        }

        @Test func aKilledHypervisorIsNamed() throws {
            let driver = try #require(Lab.driver)
            let outcome = try killing(driver.machineProcess)
            #expect(outcome.errorText.contains(driver.killedMachine), "\(outcome.errorText)")
        }

        @Test func aKilledDeviceProcessIsNamed() throws {
            for name in try #require(Lab.driver).deviceProcesses {
                let outcome = try killing(name)
                #expect(
                    outcome.errorText.contains("\(name) was killed by signal 9 (SIGKILL)"), "\(outcome.errorText)")
            }
        }

        /// The tests above would miss a process that nobody told them of.
        @Test func thePodHasTheProcessesOfItsDriver() throws {
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(bundle: scene.bundle(script: "echo up; read x"), id: id, input: .pipe)
                try run.output?.wait(for: "up\n")
                let state = Leftovers.read("\(scene.root)/\(id)/state.json") ?? ""
                let names = state.matches(
                    of: try Regex("\"name\":\"([^\"]+)\",\"pid\"", as: (Substring, Substring).self))
                let driver = try #require(Lab.driver)
                #expect(
                    Set(names.map { String($0.1) })
                        == Set(
                            driver.deviceProcesses + [driver.machineProcess, "server"]),
                    "\(state)")
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
            }
        }

        /// What only the built-in VMM's machine can come to. The clock runs from the command's start.
        @Test(.enabled(if: Lab.driver == .kvm, "QEMU takes these kernels as broken ones"))
        func whatEndsTheMachineUnderTheKernelIsNamed() throws {
            for (kernel, reason) in [
                (TinyKernel.tripleFault, "the guest crashed: vCPU 0 shut down after a triple fault"),
                (TinyKernel.lost, "the virtual machine failed: vCPU 0: KVM could not go on"),
            ] {
                try Scene.play { scene in
                    let file = try scene.write("kernel", bytes: kernel[...])
                    let begin = ContinuousClock.now
                    let outcome = try scene.run(
                        bundle: scene.bundle(args: ["true"]), global: scene.configuration("vm.kernel = \"\(file)\""))
                    let took = ContinuousClock.now - begin
                    #expect(took < .seconds(2) * Lab.patience, "took \(took)")
                    #expect(outcome.code != 0 && outcome.errorText.contains(reason), "\(outcome.errorText)")
                }
            }
        }

        @Test func aKilledServerIsNamed() throws {
            let outcome = try killing("server")
            #expect(
                outcome.errorText.contains("the pod's server was killed by signal 9 (SIGKILL)"), "\(outcome.errorText)")
        }

        @Test func aKilledCommandTakesThePodWithIt() throws {
            try Scene.play { scene in
                let run = try scene.start(bundle: scene.bundle(script: "echo up; sleep 1000"))
                try run.output?.wait(for: "up\n")
                run.child.signal(SIGKILL)
                #expect(try run.finish().end == .signaled(SIGKILL))
            }
        }

        /// `make test` makes this guest: the same but for an agent that has faults on request.
        static let faultyGuest = Lab.variable("MARTLET_FAULTY_GUEST") ?? "\(Lab.repository)/.build/guest/faulty"
        static var hasFaultyGuest: Bool { access("\(faultyGuest)/initramfs", R_OK) == 0 }

        /// The agent takes the fault when it is asked to start the container.
        private func endOfFaultyAgent(_ fault: String) throws -> Outcome {
            var result: Outcome?
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "sleep 1000") {
                    $0.process?.env.append("io.martlet.fault=\(fault)")
                }
                let run = try scene.start(
                    bundle: bundle, global: ["--debug"], environment: Lab.environment(guest: Self.faultyGuest))
                try run.errors?.wait(for: ": start\"\n")
                let begin = ContinuousClock.now
                let outcome = try run.finish(within: .seconds(30))
                let took = ContinuousClock.now - begin
                #expect(took < .seconds(5) * Lab.patience, "took \(took): \(outcome.errorText)")
                #expect(outcome.code == 255, "\(outcome.errorText)")
                result = outcome
            }
            return try #require(result)
        }

        @Test(.enabled(if: hasFaultyGuest, "no guest with the faulty agent (make guest-faulty)"))
        func anAgentThatCrashesIsNamed() throws {
            let outcome = try endOfFaultyAgent("crash")
            #expect(outcome.errorText.contains("the guest crashed: Kernel panic"), "\(outcome.errorText)")
            #expect(outcome.errorText.contains("Attempted to kill init"), "\(outcome.errorText)")
        }

        @Test(.enabled(if: hasFaultyGuest, "no guest with the faulty agent (make guest-faulty)"))
        func anAgentThatHangsIsNamed() throws {
            let outcome = try endOfFaultyAgent("hang")
            #expect(outcome.errorText.contains("the agent stopped answering"), "\(outcome.errorText)")
        }
    }
}
