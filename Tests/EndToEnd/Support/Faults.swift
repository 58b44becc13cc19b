import Glibc
import LinuxSystem
import OCISpec
import Testing

/// Which of a pod's processes fails, and how.
enum Victim: String, CaseIterable, Sendable {
    case shim, machine, files
    /// The machine stands still, and with it the agent.
    case stall

    /// The process's name in state.json.
    var process: String {
        switch self {
        case .shim: "server"
        case .machine, .stall: Lab.driver?.machineProcess ?? ""
        case .files: "martlet-device files"
        }
    }

    func strike(_ pid: Int32) { kill(pid, self == .stall ? SIGSTOP : SIGKILL) }
}

/// What containerd is doing with the task meanwhile.
enum Step: String, CaseIterable, Sendable {
    /// The pod's directory is there, and its first processes.
    case birth
    /// Create is under way: a hook runs.
    case create
    /// Between create and start.
    case created
    case running
    /// A further process runs.
    case exec
    /// The guest has stopped answering when the request comes.
    case execStarting, kill, delete
}

/// A task that a fault comes to.
struct FaultScene {
    let containerd: Containerd
    let scene: Scene
    let id: String

    /// How long a command may take to end: as long as the host waits for an agent, and some more.
    static let deadline = Duration.seconds(15)
    /// What the host waits for the agent.
    static let settings = """
        agent.start_timeout_s = \(8 * Lab.patience)
        agent.request_timeout_s = \(8 * Lab.patience)
        agent.heartbeat_timeout_ms = \(2000 * Lab.patience)
        """

    init(_ containerd: Containerd, _ scene: Scene) {
        (self.containerd, self.scene) = (containerd, scene)
        id = scene.newID()
    }

    /// Plays it, and clears up as a person would.
    func play(_ step: Step, _ victim: Victim) throws {
        switch step {
        case .birth: try atBirth(victim)
        case .create:
            try inCreation { release in
                victim.strike(try process(victim))
                if victim != .shim { try release() }
            }
        case .created:
            try whenCreated {
                victim.strike(try process(victim))
                try containerd.wait(for: victim == .shim ? nil : "STOPPED", of: id)
            }
        case .running:
            try start()
            victim.strike(try process(victim))
        case .exec:
            try start()
            let exec = try containerd.begin(
                ["task", "exec", "--exec-id", "one", id, "/bin/sh", "-c", "echo up; sleep 1000"])
            try exec.output?.wait(for: "up\n")
            victim.strike(try process(victim))
            #expect(try exec.finish(within: Self.deadline).code != 0)
        case .execStarting:
            try whileStalled(victim, ["task", "exec", "--exec-id", "one", id, "/bin/sleep", "1000"])
        case .kill: try whileStalled(victim, ["task", "kill", "--signal", "KILL", id])
        case .delete: try whileStalled(victim, ["task", "rm", "--force", id])
        }
        try clear()
    }

    private func process(_ victim: Victim) throws -> Int32 { try containerd.process(victim.process, of: id) }

    /// A container with `hook`, run at its creation.
    private func run(hook: Hook? = nil) throws -> Command {
        let bundle = try scene.bundle(script: "while :; do sleep 1; done") { spec in
            spec.linux?.cgroupsPath = "/\(id)"
            guard let hook else { return }
            var hooks = Hooks()
            hooks.createRuntime = [hook]
            spec.hooks = hooks
        }
        let config = "\(bundle)/config.json"
        let text = (Leftovers.read(config) ?? "").replacing(
            "\"path\" : \"rootfs\"", with: "\"path\" : \"\(bundle)/rootfs\"")
        try scene.write(config, text)
        return try containerd.begin(Containerd.run(["-d"], id, bundle: bundle))
    }

    private func start() throws { try run().finishWell() }

    private func atBirth(_ victim: Victim) throws {
        let run = try run()
        victim.strike(try process(victim))
        #expect(try run.finish(within: Self.deadline).code != 0)
    }

    /// A created task ends by a signal as a running one does.
    func killCreated() throws {
        try whenCreated {
            try containerd.succeed("task", "kill", "--signal", "KILL", id)
            try containerd.wait(for: "STOPPED", of: id)
            let removed = try containerd.ctr("task", "rm", id)
            #expect(removed.errorText.contains("non-zero exit code 137"), "\(removed.errorText)")
        }
        try clear()
    }

    /// Does something while a hook holds the creation up; what `body` is given lets it go on. ctr can't ask for the start meanwhile.
    private func inCreation(_ body: (_ release: () throws -> Void) throws -> Void) throws {
        let (up, go) = ("\(scene.directory)/\(id).up", "\(scene.directory)/\(id).go")
        for fifo in [up, go] { try check("mkfifo", fifo, mkfifo(fifo, 0o600)) }
        let run = try run(hook: Hook(path: "/bin/sh", args: ["sh", "-c", "echo up >\(up); read word <\(go)"]))
        try Command.run("/bin/cat", [up], within: .seconds(20))
        run.child.signal(SIGSTOP)
        defer { run.child.signal(SIGCONT) }
        try body { try scene.write(go, "go\n") }
        run.child.signal(SIGCONT)
        let outcome = try run.finish(within: Self.deadline)
        #expect(outcome.code != 0)
    }

    /// Does something between create and start.
    private func whenCreated(_ body: () throws -> Void) throws {
        try inCreation { release in
            try release()
            try containerd.wait(for: "CREATED", of: id)
            try body()
        }
    }

    /// Begins a command that the agent does not answer, then strikes.
    private func whileStalled(_ victim: Victim, _ arguments: [String]) throws {
        try start()
        let pid = try process(victim)
        Glibc.kill(try process(.machine), SIGSTOP)
        let command = try containerd.begin(arguments)
        usleep(300_000)
        victim.strike(pid)
        _ = try command.finish(within: Self.deadline)
    }

    /// containerd has the truth, and lets go of everything.
    private func clear() throws {
        let end = ContinuousClock.now + Self.deadline * Lab.patience
        while let state = try containerd.state(of: id), state != "STOPPED" {
            guard ContinuousClock.now < end else { throw LabError("\(id) is \(state): \(containerd.log.suffix(2000))") }
            usleep(50_000)
        }
        _ = try containerd.begin(["task", "rm", "--force", id]).finish(within: Self.deadline)
        try containerd.wait(for: nil, of: id)
        _ = try containerd.begin(["container", "rm", id]).finish(within: Self.deadline)
        #expect(!(try containerd.succeed("container", "ls", "-q").contains(id)))
        #expect(containerd.settledLeftovers() == [])
    }
}
