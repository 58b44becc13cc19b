import Glibc
import LinuxSystem

/// The engine behind CRI in a scene: containerd, or CRI-O where `MARTLET_TEST_CRI` is `cri-o`, which Debian has no package
/// of (its `crio` and `pinns`, `conmon` and `skopeo` must be in PATH).
protocol CRIEngine: Sendable {
    /// The socket of its CRI.
    var socket: String { get }
    /// Where the shims keep the state of its pods.
    var pods: String { get }
    /// The name space of its pods.
    var namespace: String { get }
    /// The daemon's process id.
    var pid: Int32? { get }
    /// Directories with something of each pod or container, which are empty when there is none.
    var ownDirectories: [String] { get }

    /// Makes an image of busybox that runs `command` (empty: a shell), and gives it to the engine.
    func importImage(_ name: String, command: [String]) throws
    /// Starts the daemon.
    func start() throws
    /// Kills the daemon.
    func kill() throws
    /// Takes away what it keeps when it ends. Called once it is dead.
    func clearAway() throws
}

extension CRIEngine {
    func clearAway() throws {}

    /// What the pod's shim writes down.
    func stateFile(of id: String) -> String { "\(pods)/containerd-\(namespace)/\(id)/state.json" }

    /// The process of a pod that has `name` in its state.json, as soon as there is one.
    func process(_ name: String, of id: String, within limit: Duration = .seconds(20)) throws -> Int32 {
        let end = ContinuousClock.now + limit * Lab.patience
        while true {
            do {
                return try Leftovers.process(name, in: stateFile(of: id))
            } catch {
                guard ContinuousClock.now < end else { throw error }
                usleep(2_000)
            }
        }
    }

    /// What is left of pods when they have had five seconds to go.
    func settledLeftovers() -> [String] {
        let end = ContinuousClock.now + .seconds(5) * Lab.patience
        while !leftovers.isEmpty, ContinuousClock.now < end { usleep(50_000) }
        return leftovers
    }

    private var leftovers: [String] {
        // The directories themselves are removed with the last pod.
        Leftovers.list(pods).filter { $0 == "@" || $0.hasPrefix("containerd-") }.flatMap { name in
            [name] + Leftovers.list("\(pods)/\(name)").map { "\(name)/\($0)" }
        }
    }
}
