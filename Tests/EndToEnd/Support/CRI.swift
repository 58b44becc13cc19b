import Glibc
import LinuxSystem
import Testing

/// An engine as a node of Kubernetes has it, containerd with its CRI plugin where nothing else is said: runtime handlers for
/// Martlet and runc, CNI plugins, a streaming server. All of its network is in a namespace of its own, the "host" of these tests.
final class CRI {
    static let pause = "docker.io/library/pause:test"
    private static let plugins = "/usr/lib/cni"

    let scene: Scene
    let engine: any CRIEngine
    let client: CRIClient
    /// The network namespace that is the pods' host, 10.98.0.1 on the pods' bridge.
    let host: String
    /// Where pods' logs are, a directory each.
    let logs: String
    private let leases: String
    private var groups: [String] = []
    private var count = 0

    /// Why there is none; nil when there can be one.
    static var obstacle: String? {
        if let obstacle = Containerd.obstacle { return obstacle }
        if CRIO.isWanted, let obstacle = CRIO.obstacle { return obstacle }
        for program in ["runc", "containerd-shim-runc-v2", "iptables", "nsenter"] where Lab.program(program) == nil {
            return "no \(program) in PATH"
        }
        for plugin in ["bridge", "host-local", "portmap", "macvlan", "loopback"]
        where access("\(plugins)/\(plugin)", X_OK) != 0 {
            return "no \(plugins)/\(plugin) (containernetworking-plugins)"
        }
        return nil
    }

    /// Versions of CRI to be shown; CRI-O has no other than v1.
    static var versions: [String] {
        (Lab.driver == .qemu || Lab.everything) && !CRIO.isWanted ? ["v1", "v1alpha2"] : ["v1"]
    }

    /// A handler of another kind. With CRI-O there is none: its `conmon` misses the end of runc's containers when this process is
    /// the parent of orphans.
    static var other: String { CRIO.isWanted ? "martlet" : "runc" }

    /// Plays a scene with a runtime in it; at its end nothing of any pod may be left.
    static func play(
        settings: String = "", guest: String = Lab.guest, _ body: (CRI) throws -> Void,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try Scene.play(
            { scene in
                let cri = try CRI(scene, settings: settings, guest: guest)
                defer { cri.close() }
                try body(cri)
                #expect(cri.settledLeftovers() == [], sourceLocation: sourceLocation)
            }, sourceLocation: sourceLocation)
    }

    private init(_ scene: Scene, settings: String, guest: String) throws {
        self.scene = scene
        host = "\(scene.token)host"
        let (bridged, straight) = (try scene.makeDirectory("cni"), try scene.makeDirectory("cni-macvlan"))
        leases = try scene.makeDirectory("cni-leases")
        logs = try scene.makeDirectory("logs")
        try Command.shell(
            """
            modprobe -q -a bridge veth macvlan sch_ingress cls_u32 act_mirred br_netfilter || true
            ip netns add \(host)
            ip -n \(host) link set lo up
            ip -n \(host) link add outside type veth peer name wire
            ip -n \(host) addr add 10.96.0.1/24 dev outside
            ip -n \(host) link set outside up
            ip -n \(host) link set wire up
            """)
        do {
            try scene.write("cni/10-pods.conflist", Self.bridge(leases))
            try scene.write("cni-macvlan/10-pods.conflist", Self.macvlan(leases))
            if CRIO.isWanted {
                engine = try CRIO(
                    scene, settings: settings, guest: guest, network: host, pause: Self.pause, cni: bridged,
                    plugins: Self.plugins)
            } else {
                engine = try Containerd(
                    scene, settings: settings, guest: guest, namespace: "k8s.io", network: host,
                    plugins: Self.configuration(bridged, straight))
                try engine.importImage(Self.pause, command: ["/bin/sleep", "100000000"])
            }
            client = try CRIClient(socket: engine.socket)
            try waitUntilReady()
        } catch {
            _ = try? Command.run("ip", ["netns", "del", host])
            throw error
        }
    }

    /// Starts an engine that was killed, and waits until it serves CRI.
    func start() throws {
        try engine.start()
        try waitUntilReady()
    }

    private func waitUntilReady() throws {
        try waiting(within: .seconds(20), for: "CRI") {
            // It says so while it is about to start.
            guard let conditions = try? call("Status")["status"]["conditions"].list else { return false }
            return !conditions.isEmpty && conditions.allSatisfy { $0["status"] == true }
        }
    }

    private func close() {
        // What a test that has failed left.
        for pod in (try? call("ListPodSandbox")["items"].list) ?? [] {
            try? stopContainers(of: pod["id"].text)
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                _ = try? call(method, ["pod_sandbox_id": pod["id"]])
            }
        }
        client.close()
        try? engine.kill()
        try? engine.clearAway()
        for group in groups { HostGroup.remove(group) }
        _ = try? Command.run("ip", ["netns", "del", host])
    }

    private static func bridge(_ leases: String) -> String {
        """
        {"cniVersion": "0.4.0", "name": "pods", "plugins": [
          {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
           "ipam": {"type": "host-local", "dataDir": "\(leases)", "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": "10.98.0.0/24"}]]}},
          {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
        """
    }

    private static func macvlan(_ leases: String) -> String {
        """
        {"cniVersion": "0.4.0", "name": "straight", "plugins": [
          {"type": "macvlan", "master": "wire", "mode": "bridge",
           "ipam": {"type": "host-local", "dataDir": "\(leases)", "routes": [{"dst": "0.0.0.0/0", "gw": "10.96.0.1"}],
                    "ranges": [[{"subnet": "10.96.0.0/24", "rangeStart": "10.96.0.10"}]]}}]}
        """
    }

    /// The handlers are `martlet`; `macvlan`, which differs by its network; `devices`, whose privileged pods get the host's
    /// devices; and `runc`.
    private static func configuration(_ bridged: String, _ straight: String) -> String {
        let handler = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes"
        return """
            [plugins."io.containerd.grpc.v1.cri"]
              sandbox_image = "\(pause)"
              restrict_oom_score_adj = true
              disable_apparmor = true
              netns_mounts_under_state_dir = true
              stats_collect_period = 1
            [plugins."io.containerd.grpc.v1.cri".cni]
              bin_dir = "\(plugins)"
              conf_dir = "\(bridged)"
            \(handler).martlet]
              runtime_type = "io.containerd.martlet.v2"
              pod_annotations = ["io.martlet.*"]
              privileged_without_host_devices = true
            \(handler).macvlan]
              runtime_type = "io.containerd.martlet.v2"
              cni_conf_dir = "\(straight)"
            \(handler).devices]
              runtime_type = "io.containerd.martlet.v2"
            \(handler).runc]
              runtime_type = "io.containerd.runc.v2"
            """
    }

    /// A call; see `CRIClient.call`.
    @discardableResult
    func call(_ method: String, _ message: JSONValue = [:], within limit: Int = 60) throws -> JSONValue {
        try client.call(method, message, within: limit)
    }

    /// What a kubelet asks for a pod: the handler, and what `edit` changes of PodSandboxConfig.
    func newPod(edit: (inout JSONValue) -> Void = { _ in }) throws -> JSONValue {
        count += 1
        let name = "pod\(count)"
        let group = "/\(scene.token)-\(name)"
        try HostGroup.make(group)
        groups.append(group)
        var config: JSONValue = [
            "metadata": ["name": "\(name)", "uid": "\(scene.token)-\(name)", "namespace": "test"],
            "hostname": "\(name)", "log_directory": "\(try scene.makeDirectory("logs/\(name)"))",
            "linux": [
                "cgroup_parent": "\(group)",
                "security_context": ["namespace_options": ["pid": "CONTAINER"]],
            ],
        ]
        edit(&config)
        return config
    }

    /// Runs a pod.
    func run(
        _ handler: String = "martlet", version: String = "v1", edit: (inout JSONValue) -> Void = { _ in }
    ) throws -> CRIPod {
        let config = try newPod(edit: edit)
        do {
            let reply = try client.call(
                "RunPodSandbox", ["config": config, "runtime_handler": "\(handler)"], version: version)
            return CRIPod(self, id: reply["pod_sandbox_id"].text, config: config, version: version)
        } catch { throw CRIError(description: "\(error)") }
    }

    /// CRI-O gives each container of a pod that is stopped three minutes; a kubelet has stopped them before.
    func stopContainers(of pod: String) throws {
        for container in try call("ListContainers", ["filter": ["pod_sandbox_id": "\(pod)"]])["containers"].list {
            try call("StopContainer", ["container_id": container["id"], "timeout": 0])
        }
    }

    /// A command in the pods' host, under way.
    func start(_ words: [String], input: Command.Stream = .null, output: Command.Stream = .pipe) throws -> Command {
        try Command("nsenter", ["--net=\(Net.path(host))"] + words, input: input, output: output)
    }

    /// A shell's script in the pods' host, to its end.
    func shell(_ script: String) throws -> Outcome { try start(["/bin/sh", "-c", script]).finish() }

    /// What is left of pods when they have had five seconds to go.
    func settledLeftovers() -> [String] {
        let end = ContinuousClock.now + .seconds(5) * Lab.patience
        var left = leftovers
        while !left.isEmpty, ContinuousClock.now < end {
            usleep(50_000)
            left = leftovers
        }
        return left
    }

    /// Pods, containers, interfaces, addresses, forwarded ports, network namespaces, control groups: a line each.
    private var leftovers: [String] {
        do {
            let links = try Command.run("ip", ["-n", host, "-o", "link"]).split(separator: "\n")
                .filter { $0.contains("veth") && !$0.contains("wire") && !$0.contains("outside") }
            let rules = try shell("iptables -t nat -S 2>/dev/null | grep -E 'dport|CNI-(DN|SN)-' || true").lines
            let listed =
                try call("ListPodSandbox")["items"].list.map { "pod \($0["id"].text)" }
                + call("ListContainers")["containers"].list.map { "container \($0["id"].text)" }
            let addresses = ["pods", "straight"].flatMap { Leftovers.list("\(leases)/\($0)") }
                .filter { $0.hasPrefix("10.") }.map { "lease \($0)" }
            let names = engine.ownDirectories.flatMap { directory in
                Leftovers.list(directory).map { "\(directory)/\($0)" }
            }
            return engine.settledLeftovers() + links.map(String.init) + rules + listed + addresses + names
                + groups.flatMap { HostGroup.children(of: $0) }
        } catch { return ["\(error)"] }
    }
}
