import FoundationEssentials
import Glibc
import Testing

extension Containers {
    @Suite struct DoctorTests {
        private struct Finding: Decodable {
            var severity: String
            var subject: String
            var problem: String
            var remedy: String
        }

        private func findings(
            _ scene: Scene, _ options: [String], code: Int32, sourceLocation: SourceLocation = #_sourceLocation
        ) throws -> [Finding] {
            let outcome = try Command(
                Lab.martlet,
                ["--root", scene.root] + options + ["doctor", "--json", "--etc", "\(scene.directory)/etc"]
            ).finish()
            #expect(outcome.code == code, "\(outcome.errorText)", sourceLocation: sourceLocation)
            return try JSONDecoder().decode([Finding].self, from: Data(outcome.text.utf8))
        }

        /// A host whose configuration, files and engines are wrong in many ways.
        @Test func eachFaultIsNamed() throws {
            try Scene.play { scene in
                for directory in [
                    "etc", "etc/containerd", "etc/containers", "etc/containers/containers.conf.d", "etc/docker",
                ] {
                    _ = try scene.makeDirectory(directory)
                }
                try scene.write("etc/subuid", "somebody:1999999000:65536\n")
                try scene.write("etc/containerd/config.toml", "runtime_type = \"io.containerd.martlet-x.v2\"\n")
                try scene.write(
                    "etc/containers/containers.conf.d/x.conf",
                    "[engine.runtimes]\n# \"/no/martlet\"\nmartlet = [\"/nowhere/martlet\"]\n")
                try scene.write("etc/docker/daemon.json", #"{"runtimes": {"m": {"path": "/never/martlet"}}}"#)
                let templates = try scene.makeDirectory("templates")
                _ = try scene.makeDirectory("templates/broken")
                try scene.write("templates/broken/shape.json", "{}")
                _ = try scene.makeDirectory("templates/.new-1")
                let options = try scene.configuration(
                    """
                    hypervisor = "qemu"
                    qemu.path = "/nowhere/qemu"
                    vm.kernel = "/nowhere/vmlinux"
                    vm.memory_mib = 1000000
                    template.directory = "\(templates)"
                    pool.directory = "\(scene.directory)/pool"
                    pool.size = 2
                    """)
                let found = try findings(scene, options, code: 1)
                let expected = [
                    "guest kernel": "/nowhere/vmlinux", "qemu": "/nowhere/qemu", "vm.memory_mib": "1000000",
                    "jail.first_user": "etc/subuid", "template.directory": "open to others",
                    "template broken": "shape.json",
                    "pool": "2 are wanted", "containerd": "containerd-shim-martlet-x-v2", "podman": "/nowhere/martlet",
                    "docker": "/never/martlet",
                ]
                for (subject, problem) in expected {
                    let named = found.filter { $0.subject == subject && $0.problem.contains(problem) }
                    #expect(named.count == 1 && named.allSatisfy { !$0.remedy.isEmpty }, "\(subject): \(found)")
                }
                #expect(found.contains { $0.problem.contains(".new-1") })
                #expect(!found.contains { $0.problem.contains("/no/martlet") })

                let wrong = try findings(scene, scene.configuration("vm.vcpu = 2"), code: 1)
                #expect(wrong.first?.subject == "configuration" && wrong.first?.problem.contains("vm.vcpu") == true)
            }
        }

        /// What a dead server leaves is named with a command that takes it away; then nothing is wrong that a pod would meet.
        @Test func aDeadPodIsNamedAndMended() throws {
            try Scene.play { scene in
                let options = try scene.configuration(
                    "template.directory = \"\(scene.directory)/templates\"\npool.directory = \"\(scene.directory)/pool\""
                )
                #expect(try findings(scene, options, code: 0).allSatisfy { $0.severity == "advice" })
                let id = scene.newID()
                try Command(
                    Lab.martlet,
                    scene.runArguments(
                        bundle: scene.bundle(script: "sleep 1000"), id: id, global: options, options: ["--detach"]),
                    output: .null, errors: .null, environment: Lab.environment
                ).finishWell()
                struct Pod: Decodable { var pid: Int32 }
                let text = try Command.run(Lab.martlet, ["--root", scene.root, "pod", "list", "--json"])
                let pod = try #require(try JSONDecoder().decode([Pod].self, from: Data(text.utf8)).first)
                kill(pod.pid, SIGKILL)
                let limit = ContinuousClock.now + .seconds(10 * Lab.patience)
                var found: [Finding] = []
                while found.isEmpty, ContinuousClock.now < limit {
                    let outcome = try Command(Lab.martlet, ["--root", scene.root] + options + ["doctor", "--json"])
                        .finish()
                    found = try JSONDecoder().decode([Finding].self, from: Data(outcome.text.utf8))
                        .filter { $0.subject == "pod \(id)" }
                }
                #expect(found.count == 1 && found[0].severity == "fault", "\(found)")
                try Command.shell(
                    found[0].remedy.replacing("martlet ", with: "\(Lab.martlet) ", maxReplacements: 1))
                #expect(try findings(scene, options, code: 0).allSatisfy { $0.severity == "advice" })
                _ = try Command.run(Lab.martlet, ["--root", scene.root, "delete", "--force", id])
            }
        }
    }
}
