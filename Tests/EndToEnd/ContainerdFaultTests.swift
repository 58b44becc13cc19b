import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Whatever dies, and whenever: commands end, containerd learns the truth, and nothing is left.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdFaultTests {
        @Test(arguments: [
            (Step.birth, Victim.shim), (.create, .machine), (.created, .machine), (.created, .shim), (.exec, .files),
            (.execStarting, .stall),
        ]) func aFaultEndsTheTask(_ step: Step, _ victim: Victim) throws {
            try Containerd.play(settings: FaultScene.settings) { containerd, scene in
                try FaultScene(containerd, scene).play(step, victim)
            }
        }

        /// In a network namespace that outlives the pod.
        @Test func aDeadShimsRedirectionsAreTakenAway() throws {
            try Containerd.play { containerd, scene in
                let net = try Net(scene)
                defer { try? net.remove() }
                let pod = try net.pod()
                try net.connect(pod, number: 2)
                let id = scene.newID()
                try containerd.begin(
                    Containerd.run(["-d", "--with-ns", "network:\(Net.path(pod))"], id, ["/bin/sleep", "1000"])
                ).finishWell()
                #expect(try net.traces(pod).count == 3)
                kill(try containerd.process("server", of: id), SIGKILL)
                try containerd.wait(for: nil, of: id)
                #expect(containerd.settledLeftovers() == [])
                #expect(try net.traces(pod) == [])
                try containerd.succeed("container", "rm", id)
            }
        }

        @Test func aCreatedTaskCanBeKilled() throws {
            try Containerd.play { containerd, scene in try FaultScene(containerd, scene).killCreated() }
        }

        /// Each victim at each step.
        @Test(.enabled(if: Lab.everything), arguments: Step.allCases) func eachFaultEndsTheTask(_ step: Step) throws {
            try Containerd.play(settings: FaultScene.settings) { containerd, scene in
                for victim in Victim.allCases {
                    do { try FaultScene(containerd, scene).play(step, victim) } catch {
                        Issue.record("\(step), \(victim): \(error)")
                    }
                }
            }
        }

        /// The agent takes the fault when it is asked to start the container.
        @Test(
            .enabled(if: FaultTests.hasFaultyGuest, "no guest with the faulty agent (make guest-faulty)"),
            arguments: Lab.everything ? ["crash", "hang"] : ["crash"])
        func aFaultyAgentEndsTheTask(_ fault: String) throws {
            try Containerd.play(settings: FaultScene.settings, guest: FaultTests.faultyGuest) { containerd, scene in
                let id = scene.newID()
                let run = try containerd.begin(
                    Containerd.run(["-d", "--env", "io.martlet.fault=\(fault)"], id, ["/bin/sleep", "1000"]))
                let outcome = try run.finish(within: FaultScene.deadline)
                #expect(outcome.code != 0)
                let reason = fault == "crash" ? "the guest crashed: Kernel panic" : "the agent stopped answering"
                #expect(outcome.errorText.contains(reason), "\(outcome.errorText)")
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
            }
        }

        /// Of the container's limit, and of the whole guest.
        @Test(arguments: Lab.everything ? [true, false] : [true]) func outOfMemoryIsTold(_ hasLimit: Bool) throws {
            try Containerd.play(settings: "vm.memory_mib = 256") { containerd, scene in
                let id = scene.newID()
                let events = try containerd.begin(["events"])
                defer { events.child.signal(SIGKILL) }
                let limit = hasLimit ? ["--memory-limit", "33554432"] : []
                try containerd.begin(
                    Containerd.run(["-d"] + limit, id, ["/bin/sh", "-c", "sleep 1; exec tail /dev/zero"])
                ).finishWell()
                try containerd.wait(for: "STOPPED", of: id, within: .seconds(60))
                try events.output?.wait(for: "/tasks/oom {\"container_id\":\"\(id)\"}", within: .seconds(5))
                try events.output?.wait(for: "\"exit_status\":137", within: .seconds(5))
                #expect(try containerd.ctr("task", "rm", id).errorText.contains("non-zero exit code 137"))
                try containerd.succeed("container", "rm", id)
            }
        }

        /// No room for the state of pods: no byte, or no file.
        @Test func aFullStateDirectoryIsNamed() throws {
            try Scene.play { scene in
                let pods = try scene.makeDirectory("pods")
                try Command.run("mount", ["-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "none", pods])
                defer { umount2(pods, Int32(MNT_DETACH)) }
                let containerd = try Containerd(scene)
                defer { try? containerd.kill() }
                for filling in ["cat /dev/zero >\(pods)/full", "for i in $(seq 100); do : >\(pods)/full$i; done"] {
                    _ = try Command("/bin/bash", ["-c", filling]).finish()
                    let id = scene.newID()
                    let outcome = try containerd.begin(Containerd.run(["--rm"], id, ["/bin/true"])).finish()
                    #expect(outcome.code != 0)
                    #expect(outcome.errorText.contains("No space left on device"), "\(outcome.errorText)")
                    #expect(try containerd.state(of: id) == nil)
                    #expect(containerd.settledLeftovers() == [])
                    try Command.shell("rm -f \(pods)/full*")
                }
                // One that runs when the room is used up lives and ends as any other.
                let id = scene.newID()
                try containerd.begin(Containerd.run(["-d"], id, ["/bin/sleep", "1000"])).finishWell()
                _ = try Command("/bin/bash", ["-c", "cat /dev/zero >\(pods)/full"]).finish()
                try containerd.succeed("task", "exec", "--exec-id", "one", id, "/bin/true")
                try containerd.succeed("task", "kill", "--signal", "KILL", id)
                try containerd.wait(for: "STOPPED", of: id)
                _ = try containerd.ctr("task", "rm", id)
                try containerd.succeed("container", "rm", id)
                #expect(containerd.settledLeftovers() == [])
            }
        }

        /// Killed in the middle of a creation, and later with two tasks under way, of which one ends meanwhile.
        @Test func containerdComesBackToTheTruth() throws {
            try Containerd.play(settings: FaultScene.settings) { containerd, scene in
                let (ending, staying, unborn) = (scene.newID(), scene.newID(), scene.newID())
                try containerd.begin(Containerd.run(["-d"], ending, ["/bin/sh", "-c", "sleep 4; exit 3"])).finishWell()
                try containerd.begin(Containerd.run(["-d"], staying, ["/bin/sleep", "1000"])).finishWell()
                let run = try containerd.begin(Containerd.run(["-d"], unborn, ["/bin/sleep", "1000"]))
                _ = try containerd.process(try #require(Lab.driver).machineProcess, of: unborn)
                try containerd.kill()
                let end = ContinuousClock.now + FaultScene.deadline * Lab.patience
                #expect(try run.finish().code != 0)
                usleep(useconds_t(5_000_000 * Lab.patience))
                try containerd.start()
                let events = try containerd.begin(["events"])
                defer { events.child.signal(SIGKILL) }
                #expect(try containerd.state(of: ending) == "STOPPED")
                #expect(try containerd.state(of: staying) == "RUNNING")
                #expect(try containerd.ctr("task", "rm", ending).errorText.contains("non-zero exit code 3"))
                try containerd.succeed("task", "kill", "--signal", "KILL", staying)
                try events.output?.wait(for: "/tasks/exit {\"container_id\":\"\(staying)\"", within: .seconds(10))
                _ = try containerd.ctr("task", "rm", "--force", staying)
                // Its shim knows that nobody will come for it.
                while !containerd.settledLeftovers().isEmpty, ContinuousClock.now < end { usleep(200_000) }
                for id in [ending, staying, unborn] { try containerd.succeed("container", "rm", id) }
            }
        }
    }
}
