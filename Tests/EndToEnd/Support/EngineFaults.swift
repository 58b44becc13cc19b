import Glibc
import LinuxSystem
import Testing

/// An engine whose commands docker's users know.
protocol CommandEngine {
    static var image: String { get }
    /// A command, under way.
    func begin(_ arguments: [String], input: String?) throws -> Command
    /// The path of the state of a container's pod, in which `Leftovers.process` looks, is in one of these directories.
    var roots: [String] { get }
    /// What is left of pods when they have had some seconds to go.
    func settledLeftovers() -> [String]
}

extension CommandEngine {
    /// A command, to its end, which must come soon.
    func end(_ arguments: String...) throws -> Outcome {
        try begin(arguments, input: nil).finish(within: EngineFault.deadline)
    }
}

/// What an engine is doing with a container when a process is killed.
enum EngineStep: String, CaseIterable, Sendable {
    /// The runtime's `create` is under way.
    case create
    /// `create` is done, `start` follows.
    case start
    case exec, kill, delete
}

/// A container of an engine that loses a process.
struct EngineFault {
    /// How long a command may take to end.
    static let deadline = Duration.seconds(40)

    private let engine: any CommandEngine
    private let name: String
    /// The engine's, which its processes' command lines name.
    let id: String

    init(_ engine: any CommandEngine, _ scene: Scene) throws {
        self.engine = engine
        name = scene.newID()
        let outcome = try engine.end(
            "create", "--name", name, "--network", "none", type(of: engine).image, "/bin/sh", "-c",
            "trap 'exit 0' TERM; echo up; while :; do sleep 0.2; done")
        id = outcome.text.trimmed
        guard outcome.code == 0, id.count == 64 else { throw LabError("no container: \(outcome.errorText)") }
    }

    /// The oldest process whose command line has all these words; waits for it.
    func process(_ words: String...) throws -> Int32 {
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while ContinuousClock.now < end {
            if let pid = processes(words).first { return pid }
            usleep(2000)
        }
        throw LabError("no process \(words)")
    }

    private func processes(_ words: [String]) -> [Int32] {
        Leftovers.list("/proc").compactMap(Int32.init).sorted().filter { pid in
            let line = Leftovers.read("/proc/\(pid)/cmdline")?.replacing("\0", with: " ") ?? ""
            return words.allSatisfy(line.contains)
        }
    }

    /// The container's process on the host.
    func container() throws -> Int32 { try process("container \(id) pod ") }

    /// Begins a step, kills a process meanwhile, and clears up as a person would.
    ///
    /// - Parameters:
    ///   - creation: the command that has the runtime create the container.
    ///   - endsExec: whether the engine's command that waits for an exec ends; otherwise it is killed.
    ///   - strike: kills the process.
    ///   - recover: starts again what the engine needs.
    func play(
        _ step: EngineStep, creation: String, endsExec: Bool = true, strike: () throws -> Void,
        recover: () throws -> Void = {}
    ) throws {
        var exec: Command?
        switch step {
        case .create: try during([creation, name], strike)
        case .start:
            let isOne = creation == "start"
            if !isOne { try #require(try engine.end(creation, name).code == 0) }
            try during(["start", name]) {
                if isOne { try waitForCreation() } else { usleep(10_000) }
                try strike()
            }
        case .exec:
            try begin()
            exec = try engine.begin(["exec", name, "/bin/sh", "-c", "echo up; sleep 1000"], input: nil)
            try exec?.output?.wait(for: "up\n")
            try strike()
        case .kill:
            try begin()
            try during(["kill", name], strike)
        case .delete:
            try begin()
            try during(["rm", "--force", name]) {
                usleep(30_000)
                try strike()
            }
        }
        try recover()
        try clear()
        // What does not end with the process that was killed ends with the container.
        if let exec {
            if !endsExec { exec.child.signal(SIGKILL) }
            #expect(try finish(exec).code != 0)
        }
    }

    private func begin() throws { try #require(try engine.end("start", name).code == 0) }

    private func during(_ arguments: [String], _ strike: () throws -> Void) throws {
        let command = try engine.begin(arguments, input: nil)
        try strike()
        _ = try finish(command)
    }

    /// Until the runtime has made the container.
    private func waitForCreation() throws {
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while ContinuousClock.now < end {
            let states = try engine.roots.filter { access("\($0)/@containers/\(id)", F_OK) == 0 }.map { root in
                try Command(Lab.martlet, ["--root", root, "state", id]).finish().text
            }
            if states.contains(where: { !$0.isEmpty && !$0.contains("creating") }) { return }
            usleep(5000)
        }
        throw LabError("\(id) is not created")
    }

    /// The end of a command, whatever it is. What lost its parent is this process's child, as it would be init's.
    private func finish(_ command: Command) throws -> Outcome {
        let end = ContinuousClock.now + Self.deadline * Lab.patience
        while command.child.ended == nil, ContinuousClock.now < end {
            Leftovers.reapOrphans()
            usleep(20_000)
        }
        return try command.finish(within: .seconds(1))
    }

    /// The engine has the truth, and lets go of everything, once and again.
    private func clear() throws {
        let end = ContinuousClock.now + Self.deadline * Lab.patience
        var status = ""
        var isRunning = true
        repeat {
            Leftovers.reapOrphans()
            let outcome = try engine.end("inspect", "--type", "container", "--format", "{{.State.Status}}", name)
            status = outcome.code == 0 ? outcome.text.trimmed : "gone"
            isRunning = !processes(["container \(id) pod "]).isEmpty
            if ["running", "exited", "stopped", "dead", "gone", "created", "initialized"].contains(status),
                (status == "running") == isRunning || status == "initialized"
            {
                break
            }
            usleep(100_000)
        } while ContinuousClock.now < end
        #expect((status == "running") == isRunning, "\(status)")
        for _ in 0..<2 {
            let removal = try finish(engine.begin(["rm", "--force", name], input: nil))
            #expect(removal.code == 0, "\(removal.errorText)")
        }
        #expect(try engine.end("ps", "--all", "--quiet", "--no-trunc").text.contains(id) == false)
        #expect(engine.settledLeftovers() == [])
        Leftovers.reapOrphans()
        #expect(processes([id]) == [])
    }
}
