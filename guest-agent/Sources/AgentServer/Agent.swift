import AgentAPI
import AgentContract
import CAgent
import CLinux
import ContainerInit
import Glibc
import GuestSystem
import LinuxSystem
import TTRPC

/// The agent's program.
public enum Agent {
    /// Runs as a container init, or as the keeper of shared processes, when the arguments say so; else serves the host for ever.
    ///
    /// Not asynchronous: these set up their first and only thread, and an asynchronous `main` is run by threads of the runtime's.
    public static func main(_ arguments: [String], faults: Faults = Faults()) -> Never {
        if arguments.dropFirst().first == ContainerInitProcess.argument { ContainerInitProcess.run() }
        if arguments.dropFirst().first == ProcessKeeper.argument { ProcessKeeper.run() }
        martlet_agent_install_crash_report()
        Task.detached {
            var configuration = AgentConfiguration()
            configuration.isInit = getpid() == 1
            configuration.faults = faults
            do {
                try configuration.read(arguments.dropFirst())
                try await serve(configuration)
            } catch {
                Console.report("\(error)")
            }
            // As the first process this is the kernel's panic, and so the guest's end.
            exit(1)
        }
        while true { pause() }
    }

    private static func serve(_ configuration: AgentConfiguration) async throws -> Never {
        signal(SIGPIPE, SIG_IGN)
        let reaper = try Reaper()
        if configuration.isInit {
            try GuestSetup.run()
        } else {
            martlet_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        }
        try startThread("reaper") { reaper.run() }
        let table = StreamTable()
        let launcher = InitLauncher(reaper: reaper, executable: try SelfExecutable())
        let calls = AgentCalls(
            sandbox: Sandbox(configuration, launcher: launcher, table: table), configuration: configuration,
            machine: GuestMachine(configuration: configuration))
        let server = TTRPCServer([.agent(configuration.faults.service(calls))])
        let streams: Int32
        switch configuration.listening {
        case .vsock(let callPort, let streamPort):
            streams = try check("listen on vsock port", "\(streamPort)", martlet_agent_vsock_listen(streamPort))
            try await server.serve(vsockPort: callPort)
        case .unix(let path):
            streams = try check("listen on", "\(path).streams", martlet_agent_unix_listen(path + ".streams"))
            try await server.serve(unixPath: path)
        }
        let listener = SharedDescriptor(OwnedDescriptor(owning: streams))
        try startThread("streams") { table.serve(listener) }
        let commandLine = (try? readText("/proc/cmdline")) ?? ""
        if configuration.isInit { Doorbell.ring(commandLine) }
        Console.write(AgentConsole.readyLine)
        configuration.faults.booted(commandLine)
        while true { try await Task.sleep(for: .seconds(3600)) }
    }
}

extension AgentConfiguration {
    /// `--listen unix:PATH`, `--shares DIR`, `--volumes DIR`, `--cgroup DIR`. What the kernel hands to its first process is passed over.
    mutating func read(_ arguments: ArraySlice<String>) throws(AgentFailure) {
        if isInit { return }
        var left = arguments
        while let option = left.popFirst() {
            guard let value = left.popFirst() else { throw AgentFailure(.invalidArgument, "\(option) needs a value") }
            switch option {
            case "--listen" where value.hasPrefix("unix:"): listening = .unix(String(value.dropFirst(5)))
            case "--shares": shares = value
            case "--volumes": volumes = value
            case "--cgroup": controlGroup = value
            default: throw AgentFailure(.invalidArgument, "unknown option \(option) \(value)")
            }
        }
    }
}
