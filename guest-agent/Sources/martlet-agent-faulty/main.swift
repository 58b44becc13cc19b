// The agent, but that it crashes, hangs or lies on request: to test what the host does then.
//
// `martlet.fault=crash|hang` on the kernel's command line, or a container whose environment has
// `io.martlet.fault` with the value `crash`, `hang` or `hang-stdio`, or a lie (`Lie`).
import AgentServer
import CFault
import OCISpec

@Sendable func fault(of spec: Spec) -> String? {
    let prefix = "io.martlet.fault="
    return spec.process?.env.first { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
}

@Sendable func inject(_ fault: String?) {
    switch fault {
    case "crash": martlet_agent_trap()
    case "hang": martlet_agent_hang()
    default: return
    }
}

var faults = Faults()
faults.booted = { commandLine in
    let prefix = "martlet.fault="
    let arguments = commandLine.split { $0 == " " || $0 == "\n" }
    inject(arguments.first { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) })
}
faults.started = { inject(fault(of: $0)) }
faults.stallsStreams = { fault(of: $0) == "hang-stdio" }
faults.service = { LyingService($0) }
Agent.main(CommandLine.arguments, faults: faults)
