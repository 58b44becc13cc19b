import Bench
import LinuxSystem

/// The engines of this machine that `martlet bench isolation` measures.
struct IsolationEngines {
    private var podman: String?
    private var containerd: (address: String, ctr: String)?
    private var docker: (address: String, client: String)?
    private var missing: [IsolationReport.Missing] = []
    private var containerdDaemon: TemporaryContainerd?
    private var dockerDaemon: TemporaryDocker?

    /// Starts a containerd and a dockerd for the bench alone, where they are installed.
    ///
    /// - Parameters:
    ///   - bench: its directory holds all of their files.
    ///   - path: directories of programs, as in PATH.
    init(for bench: IsolationBench, path: String) throws {
        do {
            try findPodman(path)
            try startContainerd(bench, path)
            try startDocker(bench, path)
        } catch {
            end()
            throw error
        }
    }

    /// Has the bench measure them.
    ///
    /// - Parameter image: makes an archive of the root file system that containers get.
    func join(_ bench: inout IsolationBench, image: () throws -> String) throws {
        if let dockerDaemon { try dockerDaemon.importImage(try image()) }
        bench.podman = podman
        bench.containerd = containerd
        bench.docker = docker
        bench.missing += missing
    }

    func end() {
        dockerDaemon?.end()
        containerdDaemon?.end()
    }

    /// The path of the last program, where all are in PATH. If not, what is missing is noted for the engine.
    private mutating func find(_ programs: [String], of engine: String, _ path: String) -> String? {
        let found = programs.map { ($0, RuntimeDiscovery.locate($0, path: path)) }
        if let absent = found.first(where: { $0.1 == nil }) {
            missing.append(.init(engine, "no \(absent.0) in PATH"))
            return nil
        }
        return found.last?.1
    }

    private mutating func findPodman(_ path: String) throws {
        podman = find(["conmon", "podman"], of: "podman", path)
    }

    private mutating func startContainerd(_ bench: IsolationBench, _ path: String) throws {
        guard let ctr = find(["containerd", "nsenter", "ctr"], of: "containerd", path) else { return }
        let files = "\(bench.directory)/containerd"
        try makeDirectories(files, mode: 0o700)
        let daemon = try TemporaryContainerd(
            directory: files, runtimes: [], image: "", path: path, environment: [], plugins: "")
        containerdDaemon = daemon
        try daemon.waitUntilReady(within: .seconds(30))
        containerd = (daemon.address, ctr)
    }

    private mutating func startDocker(_ bench: IsolationBench, _ path: String) throws {
        guard let client = find(["dockerd", "nsenter", "docker"], of: "docker", path) else { return }
        guard let containerd else { return missing.append(.init("docker", "there is no containerd")) }
        let files = "\(bench.directory)/docker"
        try makeDirectories(files, mode: 0o700)
        let daemon = try TemporaryDocker(
            directory: files,
            runtimes: bench.runtimes.indices.map { IsolationEngineRuntime.program(of: $0, in: bench.directory) },
            containerd: containerd.address, path: path)
        dockerDaemon = daemon
        docker = (daemon.address, client)
    }
}
