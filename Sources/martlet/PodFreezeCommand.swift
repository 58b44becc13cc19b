import ArgumentParser
import PodService

struct PodFreezeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "freeze",
        abstract: "Run a command of this host's while the file systems on a pod's disks stand still.",
        usage: "martlet pod freeze [<options>] <pod> -- <program> [<argument> ...]",
        discussion: """
            For snapshots of volumes: what is on the disks is whole then, as after an unmount. Containers that write to them wait. Exits with \
            the command's exit code; with 255 where the disks were not frozen until its end.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: "After so many seconds the file systems go on, whatever happens: 1 to 600.")
    var timeout = 60

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    @Argument(parsing: .postTerminator, help: "After --: a program of this host and its arguments.")
    var command: [String] = []

    func validate() throws {
        guard (1...600).contains(timeout) else { throw ValidationError("--timeout must be 1 to 600") }
        guard !command.isEmpty else { throw ValidationError("a command is missing, behind --") }
    }

    func run() async throws {
        let freeze = DiskFreeze(pod: pod, command: command, seconds: timeout)
        try await global.exiting { _ in try await freeze.run(global.runtime()) }
    }
}
