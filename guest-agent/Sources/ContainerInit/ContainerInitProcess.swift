import CAgent
import CLinux
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec

/// The agent's program as a container init: it sets itself up as a process of a container and executes that process's program.
///
/// It is a process of its own, with one thread, because namespaces, credentials and the root belong to threads, and
/// because nothing but a few system calls is safe between clone and exec in a process with many.
public enum ContainerInitProcess {
    /// The first argument that makes the program a container init.
    public static let argument = "init"

    public static func run() -> Never {
        // Processes of the container that it enters see it: none may trace it or open its descriptors.
        martlet_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        let channel = InitChannel(SharedDescriptor(OwnedDescriptor(owning: InitDescriptors.channel)))
        do {
            try setUp(try readRequest(), channel)
        } catch {
            let failure = AgentFailure(error)
            do {
                try channel.send(.failed(failure.kind, failure.message))
            } catch {
                Console.report("container init: \(failure); \(error)")
            }
        }
        _exit(1)
    }

    private static func readRequest() throws(AgentFailure) -> InitRequest {
        let file = OwnedDescriptor(owning: InitDescriptors.request)
        return try during("read the container init's request") {
            try check("lseek", "", lseek(file.raw, 0, SEEK_SET))
            return try JSON.decode(
                InitRequest.self, from: Array(try readText(file.raw, "request", limit: 16 << 20).utf8), file: "request"
            )
        }
    }

    /// Sets the process up as the request says and executes its program: returns only by throwing.
    private static func setUp(_ request: InitRequest, _ channel: InitChannel) throws(AgentFailure) {
        for number in [InitDescriptors.channel, InitDescriptors.container] {
            _ = martlet_fcntl_int(number, F_SETFD, Int(FD_CLOEXEC))
        }
        // Modes of what is made are given in full.
        umask(0)
        let terminal: Terminal?
        var process: ProcessPlan
        var hooks: HookPlan?
        switch request {
        case .create(let plan):
            process = plan.process
            hooks = plan.hooks
            try adjustOOMScore(process.oomScoreAdjustment)
            try join(plan.namespaces)
            terminal = try ContainerSetup(plan: plan).apply()
        case .join(let plan, let namespaces):
            process = plan
            try SchedulingSteps.bind(to: plan.scheduling.initialProcessors, "initial")
            try adjustOOMScore(process.oomScoreAdjustment)
            try during("enter the container") {
                try check(
                    "setns", "",
                    martlet_agent_setns(InitDescriptors.container, Int32(truncatingIfNeeded: namespaces.entered)))
            }
            close(InitDescriptors.container)
            if namespaces.entered & UInt64(NamespaceFlag.pid) != 0 { try enterProcesses(channel) }
            if namespaces.owns(NamespaceFlag.user) {
                try during("become the container's root") { try check("setresuid", "0", martlet_agent_become_root()) }
            }
            try SchedulingSteps.bind(to: plan.scheduling.finalProcessors, "final")
            terminal = plan.terminal ? try Terminal(root: try openRoot(), of: plan) : nil
        case .copy(let plan, let namespaces):
            try adjustOOMScore(plan.oomScoreAdjustment)
            try FileCopy(plan: plan).run(in: namespaces, channel)
        case .machine(let plan):
            process = plan
            try adjustOOMScore(process.oomScoreAdjustment)
            terminal = plan.terminal ? try Terminal(root: try openRoot(), of: plan) : nil
        }
        let program = try ProcessSetup(plan: process).apply(terminal: terminal)
        try during("report to the agent") {
            try channel.send(.ready, descriptors: terminal.map { [$0.master.raw] } ?? [])
        }
        // The agent is gone, or has given the process up.
        guard case .go? = try? channel.receive()?.message else { _exit(1) }
        if let hooks, !hooks.startContainer.isEmpty {
            // The filter holds for these hooks too.
            if process.noNewPrivileges { try process.seccomp?.load() }
            try HookSteps(plan: hooks).runStartContainer(environment: program.environment)
            process.seccomp = nil
        }
        try execute(program, process)
    }

    /// Becomes one of the container's processes. Until here none of them could see this one, whose root was the guest's: through
    /// /proc/PID/root they would have reached the files of all containers.
    private static func enterProcesses(_ channel: InitChannel) throws(AgentFailure) {
        try during("enter the container's processes") {
            let (told, telling) = try SharedDescriptor.pipe()
            var descriptor: Int32 = -1
            let pid = try check("clone3", "", martlet_agent_go_on_in_new_process(&descriptor))
            if pid != 0 {
                try channel.send(.entered(pid), descriptors: [descriptor])
                _exit(0)
            }
            // Until the agent was told, or never will be.
            close(telling.raw)
            var byte: UInt8 = 0
            _ = read(told.raw, &byte, 1)
        }
    }

    /// Enters the namespaces of other containers; that of their processes it was started in.
    private static func join(_ plan: NamespacePlan) throws(AgentFailure) {
        for (descriptor, joined) in zip(InitDescriptors.container..., plan.joined) {
            let flags = Int32(truncatingIfNeeded: joined.flags) & ~NamespaceFlag.pid
            if flags != 0 {
                try during("join the namespaces of container \(joined.container)") {
                    try check("setns", "", martlet_agent_setns(descriptor, flags))
                }
            }
            close(descriptor)
        }
    }

    private static func openRoot() throws(AgentFailure) -> RootDirectory {
        try during("root") { try RootDirectory("/") }
    }

    private static func adjustOOMScore(_ adjustment: Int) throws(AgentFailure) {
        try during("set the oom score adjustment") {
            try writeText("\(adjustment)", to: "/proc/self/oom_score_adj")
        }
    }

    private static func execute(_ program: ProcessSetup.Program, _ plan: ProcessPlan) throws(AgentFailure) {
        let failure: AgentFailure? = withCStrings(plan.arguments) { arguments in
            withCStrings(program.environment) { environment in
                // As late as possible: every later system call must pass the filter.
                if plan.noNewPrivileges {
                    do throws(AgentFailure) { try plan.seccomp?.load() } catch { return error }
                }
                _ = execve(program.path, arguments, environment)
                return nil
            }
        }
        if let failure { throw failure }
        throw .program("exec \(program.path)", errno: Glibc.errno)
    }
}
