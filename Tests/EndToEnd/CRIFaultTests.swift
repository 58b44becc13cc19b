import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Whatever dies, a kubelet learns the truth, can clear up, and nothing is left.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRIFaultTests {
        /// CRI-O takes no notice of a shim's end until somebody asks more of the pod than its state.
        private static var victims: [Victim] { (CRIO.isWanted ? [] : [.shim]) + [.machine, .files, .stall] }

        @Test(arguments: victims) func aFaultEndsThePod(_ victim: Victim) throws {
            try CRI.play(settings: FaultScene.settings) { cri in
                let pod = try cri.run()
                let containers = [try pod.start("one"), try pod.start("two")]
                victim.strike(try cri.engine.process(victim.process, of: pod.id))
                try expectTheEnd(of: pod, containers)
            }
        }

        /// The agent takes the fault when it is asked to start the second container.
        @Test(.enabled(if: FaultTests.hasFaultyGuest, "no guest with the faulty agent (make guest-faulty)"))
        func aCrashedAgentEndsThePod() throws {
            try CRI.play(settings: FaultScene.settings, guest: FaultTests.faultyGuest) { cri in
                let pod = try cri.run()
                let one = try pod.start("one")
                let error = #expect(throws: CRIError.self) {
                    try pod.start("two") { $0["envs"] = [["key": "io.martlet.fault", "value": "crash"]] }
                }
                let words = "\(error.map { "\($0)" } ?? "")"
                #expect(words.contains("the guest crashed: Kernel panic"), "\(words)")
                try expectTheEnd(of: pod, [one])
            }
        }

        private func expectTheEnd(of pod: CRIPod, _ containers: [CRIContainer]) throws {
            try pod.wait(ready: false)
            for container in containers {
                let status = try container.wait(within: .seconds(15))
                #expect([137, 255].contains(status["exit_code"].int), "\(status)")
            }
            #expect(throws: CRIError.self) { try containers[0].execute(["/bin/true"]) }
            try pod.remove()
            #expect(pod.cri.settledLeftovers() == [])
            // The next one is as good as ever.
            let next = try pod.cri.run()
            #expect(try next.start("one").execute(["/bin/true"]).code == 0)
            try next.remove()
        }

        /// Killed with two pods under way, of which one's container ends and one's machine dies meanwhile.
        @Test func podsOutliveContainerd() throws {
            try CRI.play(settings: FaultScene.settings) { cri in
                let (staying, dying) = (try cri.run(), try cri.run())
                let one = try staying.start(
                    "one", "echo begun; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.5; done")
                let ending = try staying.start("ending", "sleep 3; exit 9")
                let other = try dying.start("other")
                try one.wait(forLog: "stdout F line 1")
                let machine = try cri.engine.process(Victim.machine.process, of: dying.id)
                try cri.engine.kill()
                Glibc.kill(machine, SIGKILL)
                usleep(useconds_t(5_000_000 * Lab.patience))
                try cri.start()
                #expect(try staying.isReady)
                #expect(try one.state == "CONTAINER_RUNNING")
                #expect(try one.execute(["/bin/echo", "here"]).output == "here\n")
                #expect(try ending.wait()["exit_code"].int == 9)
                let seen = one.logLines.count
                try waiting(within: .seconds(10), for: "more lines in \(one.log)") { one.logLines.count > seen + 2 }
                try dying.wait(ready: false)
                #expect(try other.wait()["exit_code"].int == 255)
                try staying.start("later", "sleep 1000").stop(timeout: 0)
                for pod in [staying, dying] { try pod.remove() }
            }
        }
    }
}
