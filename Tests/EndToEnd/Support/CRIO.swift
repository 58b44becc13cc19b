import Glibc
import LinuxSystem

/// A CRI-O of a scene's own, in a network namespace.
final class CRIO: CRIEngine {
    private let scene: Scene
    private let directory: String
    private let daemon: Daemon

    let namespace = "default"
    var socket: String { "\(directory)/crio.sock" }
    var pods: String { "\(scene.directory)/pods" }
    var pid: Int32? { daemon.pid }
    var ownDirectories: [String] {
        ["exits", "namespaces/ipcns", "namespaces/utsns", "namespaces/netns"].map { "\(directory)/\($0)" }
    }

    /// Whether the tests are to take it, and why they can't.
    static var isWanted: Bool { Lab.variable("MARTLET_TEST_CRI") == "cri-o" }
    static var obstacle: String? {
        let missing = ["crio", "pinns", "conmon", "skopeo", "python3"].first { Lab.program($0) == nil }
        return missing.map { "no \($0) in PATH" }
    }

    /// - Parameters:
    ///   - cni: the directory of the CNI configuration; its plugins are in `plugins`.
    init(
        _ scene: Scene, settings: String, guest: String, network: String, pause: String, cni: String, plugins: String
    ) throws {
        self.scene = scene
        directory = try scene.makeDirectory("crio")
        let file = try scene.configuration(settings + "\npaths.root = \"\(scene.directory)/pods\"\n")[1]
        daemon = Daemon(
            ["crio", "--config", "\(directory)/crio.conf", "--config-dir", "\(directory)/none"], network: network,
            environment: Lab.environment(guest: guest) + ["MARTLET_CONFIG=\(file)"])
        try scene.write("crio/policy.json", #"{"default": [{"type": "insecureAcceptAnything"}]}"#)
        try scene.write("crio/crio.conf", configuration(pause: pause, cni: cni, plugins: plugins))
        try importImage(Containerd.image)
        // It has three minutes to end by itself.
        try importImage(pause, command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000000 & wait"])
        try start()
    }

    private func configuration(pause: String, cni: String, plugins: String) -> String {
        func handler(_ name: String, _ more: String = "") -> String {
            """
            [crio.runtime.runtimes.\(name)]
            runtime_type = "vm"
            runtime_path = "\(Lab.binaries)/containerd-shim-martlet-v2"
            runtime_root = "\(directory)/martlet"
            \(more)
            """
        }
        return """
            [crio]
            root = "\(directory)/root"
            runroot = "\(directory)/run"
            storage_driver = "overlay"
            log_dir = "\(directory)/logs"
            version_file = "\(directory)/version"
            version_file_persist = "\(directory)/version-persist"
            clean_shutdown_file = "\(directory)/clean"
            [crio.api]
            listen = "\(socket)"
            stream_address = "127.0.0.1"
            [crio.runtime]
            conmon_cgroup = "pod"
            cgroup_manager = "cgroupfs"
            apparmor_profile = "unconfined"
            default_runtime = "runc"
            pinns_path = "\(Lab.program("pinns") ?? "")"
            namespaces_dir = "\(directory)/namespaces"
            container_exits_dir = "\(directory)/exits"
            container_attach_socket_dir = "\(directory)/attach"
            [crio.runtime.runtimes.runc]
            runtime_path = "\(Lab.program("runc") ?? "")"
            runtime_root = "\(directory)/runc"
            monitor_path = "\(Lab.program("conmon") ?? "")"
            monitor_cgroup = "pod"
            \(handler("martlet", "privileged_without_host_devices = true"))
            \(handler("devices"))
            [crio.image]
            pause_image = "\(pause)"
            pause_command = ""
            signature_policy = "\(directory)/policy.json"
            [crio.network]
            network_dir = "\(cni)"
            plugin_dirs = ["\(plugins)"]
            [crio.nri]
            enable_nri = false
            """
    }

    func importImage(_ name: String, command: [String] = []) throws {
        let archive = "\(directory)/image.tar"
        try Command.run("\(Lab.repository)/scripts/image.py", [name, archive] + command)
        try Command.run(
            "skopeo",
            [
                "--policy", "\(directory)/policy.json", "copy", "-q", "docker-archive:\(archive)",
                "containers-storage:[overlay@\(directory)/root+\(directory)/run]\(name)",
            ])
    }

    func start() throws { try daemon.start() }
    func kill() throws { try daemon.kill() }

    /// Its storage is mounted, and what a test that has failed left.
    func clearAway() throws { try MountEntry.detachAll(below: directory) }
}
