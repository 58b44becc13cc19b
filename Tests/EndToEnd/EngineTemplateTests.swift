import FoundationEssentials
import Glibc
import Testing

extension Containers {
    /// Pods of engines start from templates without being asked to. The built-in VMM alone has templates.
    @Suite(.enabled(if: Lab.driver == .kvm, "the driver under test is not the built-in VMM, which alone has templates"))
    struct EngineTemplateTests {
        /// What `martlet pod list --json` says of a pod.
        private struct Pod: Decodable {
            var id: String
            var template: String?
        }

        /// A directory of templates, and what pods do that may use them.
        private struct Templates {
            let scene: Scene
            var pool: String { "\(scene.directory)/pool" }
            var settings: String {
                "template.directory = \"\(scene.directory)/templates\"\npool.directory = \"\(pool)\""
            }

            /// Makes a template; answers its name.
            func make(_ options: String...) throws -> String {
                let outcome = try Command(
                    Lab.martlet, scene.configuration(settings) + ["template", "create"] + options,
                    environment: Lab.environment
                ).finish(within: .seconds(120))
                try #require(outcome.code == 0, "\(outcome.errorText)")
                return outcome.text.trimmed
            }

            /// Has a machine ready.
            ///
            /// - Parameter start: starts a program where the engine is.
            func fillPool(_ start: ([String]) throws -> Command = { try Command($0[0], Array($0[1...])) }) throws {
                let outcome = try start([Lab.martlet] + scene.configuration(settings) + ["pool", "fill"])
                    .finish(within: .seconds(120))
                try #require(outcome.code == 0, "\(outcome.errorText)")
                try #require(Leftovers.list(pool).count == 1)
            }

            /// Checks what the only pod below `root` has started from; nil: it has booted.
            ///
            /// The guest's console tells it too: the agent writes a line when it is ready, before a template is made.
            func expect(_ name: String?, root: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
                func martlet(_ arguments: String...) throws -> String {
                    try Command.run(Lab.martlet, ["--root", root, "pod"] + arguments)
                }
                let pods = try JSONDecoder().decode([Pod].self, from: Data(martlet("list", "--json").utf8))
                try #require(pods.count == 1, "\(pods)", sourceLocation: sourceLocation)
                #expect(pods[0].template == name, sourceLocation: sourceLocation)
                let console = try martlet("logs", pods[0].id)
                #expect(
                    console.contains("martlet-agent ready") == (name == nil), "\(console)",
                    sourceLocation: sourceLocation)
            }
        }

        private static let forever = ["/bin/sh", "-c", "while :; do sleep 1; done"]

        @Test(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
        func ctrUsesATemplate() throws {
            try Scene.play { scene in
                let templates = Templates(scene: scene)
                try Containerd.play(settings: templates.settings) { containerd, inner in
                    func run(_ name: String?, _ options: [String] = []) throws {
                        let id = inner.newID()
                        try containerd.begin(Containerd.run(["-d"] + options, id, Self.forever)).finishWell()
                        try templates.expect(name, root: containerd.pods)
                        let exec = try containerd.ctr("task", "exec", "--exec-id", "one", id, "/bin/echo", "in")
                        #expect(exec.code == 0 && exec.text == "in\n", "\(exec.errorText)")
                        try containerd.succeed("task", "kill", "--signal", "KILL", id)
                        try containerd.wait(for: "STOPPED", of: id)
                        _ = try containerd.ctr("task", "rm", id)
                        try containerd.wait(for: nil, of: id)
                        try containerd.succeed("container", "rm", id)
                        #expect(containerd.settledLeftovers() == [])
                    }
                    try run(nil)
                    let name = try templates.make()
                    try run(name)
                    try templates.fillPool()
                    try run(name)
                    #expect(Leftovers.list(templates.pool).isEmpty)
                    // A limit below vm.memory_mib is the container's, not the machine's; with one above it the machine grows.
                    try run(name, ["--memory-limit", "\(64 << 20)"])
                    try run(name, ["--memory-limit", "\(640 << 20)"])
                }
            }
        }

        @Test(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
        func podsOfKubernetesUseTemplates() throws {
            try Scene.play { scene in
                let templates = Templates(scene: scene)
                let standard = try templates.make()
                // The pod's limits, and vm.overhead_mib. There are no more vCPUs than the host has processors.
                let vcpus = min(2, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
                let limited = try templates.make("--vcpus", "\(vcpus)", "--memory-mib", "320")
                try CRI.play(settings: templates.settings) { cri in
                    func run(_ name: String?, edit: (inout JSONValue) -> Void = { _ in }) throws {
                        let pod = try cri.run(edit: edit)
                        try templates.expect(name, root: cri.engine.pods)
                        let container = try pod.start("first", "hostname; sleep 1000")
                        try container.wait(forLog: "stdout F \(pod.config["hostname"].text)")
                        #expect(try cri.shell("busybox ping -c 1 -W 5 \(pod.address)").code == 0)
                        try container.stop(timeout: 0)
                        try pod.remove()
                        #expect(cri.settledLeftovers() == [])
                    }
                    try run(standard)
                    try templates.fillPool { try cri.start($0) }
                    try run(standard)
                    #expect(Leftovers.list(templates.pool).isEmpty)
                    try run(limited) {
                        $0["linux"]["resources"] = [
                            "memory_limit_in_bytes": .number(256 * 1_048_576), "cpu_quota": 200_000,
                            "cpu_period": 100_000,
                        ]
                    }
                    // A template of more vCPUs does not serve, one of less memory does.
                    try run(vcpus == 1 ? limited : nil) {
                        $0["linux"]["resources"] = ["memory_limit_in_bytes": .number(260 * 1_048_576)]
                    }
                }
            }
        }

        @Test(.enabled(if: Podman.obstacle == nil, "\(Podman.obstacle ?? "")"))
        func podmanUsesATemplate() throws {
            try Scene.play { scene in
                let templates = Templates(scene: scene)
                let name = try templates.make()
                try templates.fillPool()
                try Podman.play(settings: templates.settings) { podman, inner in
                    let id = inner.newID()
                    try podman.succeed(
                        "run", "-d", "--name", id, "--network", "none", "--hostname", "box", Podman.image,
                        "/bin/sh", "-c", "while :; do sleep 1; done")
                    try templates.expect(name, root: podman.states)
                    #expect(Leftovers.list(templates.pool).isEmpty)
                    #expect(try podman.succeed("exec", id, "hostname") == "box\n")
                    try podman.succeed("kill", id)
                    #expect(try podman.succeed("wait", id).trimmed == "137")
                    try podman.succeed("rm", id)
                }
            }
        }
    }
}
