import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI

/// `martlet pod shell`: a program in the machine of a pod, in no container.
public struct MachineShell: Sendable {
    /// The pod's id, or the beginning of one that no other pod's id has.
    public var pod: String
    /// The program and its arguments; empty: a shell.
    public var command: [String]
    /// Whether it gets a terminal.
    public var hasTerminal: Bool
    /// A statically linked program of this host that the machine gets; a busybox gets all of its names.
    public var tool: String

    public init(pod: String, command: [String], hasTerminal: Bool, tool: String) {
        (self.pod, self.command, self.hasTerminal, self.tool) = (pod, command, hasTerminal, tool)
    }

    /// Runs it.
    ///
    /// - Returns: its exit code; 128 + n when signal n ended it.
    public func run(_ runtime: Runtime) async throws -> Int32 {
        try runtime.requireRoot(for: "pod shell")
        return try await asking { try await perform(runtime) }
    }

    private func perform(_ runtime: Runtime) async throws -> Int32 {
        let found = try PodList.find(pod, in: PodList.all(root: runtime.root))
        guard found.isRunning else { throw SandboxError.wrongState("pod \(found.id): its server has died") }
        let tool = try StaticProgram(tool)
        let inspection = InspectionServiceClient(try await TTRPCClient(unixPath: found.socket))
        let terminal = try TerminalSession(isRequested: hasTerminal, consoleSocket: nil, isDetached: false)
        let signals = try SignalQueue(ForwardedSignals.all)
        let id = "shell-\(String(UInt64.random(in: 0 ... .max), radix: 36))"
        let title = HostProcess.title(container: "machine", exec: id, pod: found.id)
        let handed = try HandedChild(title, stdio: terminal.stdio, to: found.socket, isDetached: false)
        let child = handed.child
        defer { withExtendedLifetime(handed) {} }
        do {
            let bytes = try JSON.encode(process(tool, terminal))
            _ = try await inspection.startInMachine(
                .with {
                    $0.id = id
                    $0.processJson = .init(bytes)
                    $0.stdin = handed.name
                    $0.tool = tool.path
                    $0.toolNames = tool.names
                }, timeout: Runtime.requestTimeout)
        } catch {
            child.signal(SIGKILL)
            throw error
        }
        terminal.begin()
        defer { terminal.end() }
        let forwarding = Task {
            await signals.pass(to: child) { await resize(id, terminal, inspection) }
        }
        defer { forwarding.cancel() }
        return await child.end().status
    }

    private func resize(_ id: String, _ terminal: TerminalSession, _ inspection: InspectionServiceClient) async {
        guard let size = terminal.size else { return }
        _ = try? await inspection.resizeInMachine(
            .with {
                $0.id = id
                ($0.width, $0.height) = size
            })
    }

    private func process(_ tool: StaticProgram, _ terminal: TerminalSession) -> Process {
        let variables: [String] = ["TERM", "LANG"]
        let own = variables.compactMap { (name: String) -> String? in
            getenv(name).map { "\(name)=\(String(cString: $0))" }
        }
        let all = Capabilities.names
        var process = Process(
            terminal: hasTerminal, args: command.isEmpty ? tool.shell : command,
            env: ["PATH=\(StaticProgram.directory):/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"] + own, cwd: "/",
            capabilities: Capabilities(bounding: all, effective: all, permitted: all))
        process.consoleSize = terminal.size.map { ConsoleSize(height: UInt($0.height), width: UInt($0.width)) }
        return process
    }
}
