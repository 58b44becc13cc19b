import ArgumentParser
import Glibc
import PodService

struct PodShellCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shell",
        abstract: "Run a shell, or another program, in a pod's machine itself, in no container.",
        usage: "martlet pod shell [<options>] <pod> [-- <program> [<argument> ...]]",
        discussion: """
            For debugging, and only where vm.debug_console of the pod's configuration is true. Exits with the program's exit code. \
            The machine has no programs of its own: it gets a statically linked one of this host.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: "The program that the machine gets: a path, or a name that is searched in PATH.")
    var tool = "busybox"

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    @Argument(parsing: .postTerminator, help: "After --: a program and its arguments in place of a shell.")
    var command: [String] = []

    func run() async throws {
        let hasTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
        let shell = MachineShell(pod: pod, command: command, hasTerminal: hasTerminal, tool: tool)
        try await global.exiting { _ in try await shell.run(global.runtime()) }
    }
}
