import ArgumentParser
import PodService
import Sandbox

/// What `create` and `run` have in common.
struct CreateArguments: ParsableArguments {
    @Option(name: [.long, .short], help: "The bundle's directory, with config.json and the root file system.")
    var bundle = "."

    @Option(help: "A Unix socket that gets the terminal's master descriptor.")
    var consoleSocket: String?

    @Option(help: "A Unix socket that gets a pidfd of the container's process on the host.")
    var pidfdSocket: String?

    @Option(help: "A file that gets the id of the container's process on the host.")
    var pidFile: String?

    @Flag(help: "Do not use pivot_root: has no effect, the root file system is in the virtual machine.")
    var noPivot = false

    @Flag(help: "Do not make a new session keyring: has no effect, the guest has keyrings of its own.")
    var noNewKeyring = false

    @Option(
        help:
            "Descriptors after the standard ones that the process gets: only 0, no descriptor reaches a virtual machine."
    )
    var preserveFds = 0

    @Argument(help: "The container's id.")
    var id: String

    func validate() throws {
        if preserveFds != 0 {
            throw ValidationError(
                "--preserve-fds \(preserveFds) is not supported: no descriptor reaches a virtual machine")
        }
    }

    func options(isDetached: Bool) -> CreateOptions {
        CreateOptions(
            id: id, bundle: bundle, pidFile: pidFile, consoleSocket: consoleSocket, pidfdSocket: pidfdSocket,
            isDetached: isDetached)
    }
}

struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Create a container in a virtual machine; start executes its program.")

    @OptionGroup var global: GlobalOptions
    @OptionGroup var arguments: CreateArguments

    func run() async throws {
        try await global.reporting { _ in
            try await global.runtimeForServers().create(arguments.options(isDetached: true))
        }
    }
}

struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Create a container in a virtual machine, and start it.",
        discussion:
            "Exits with the container's exit code, 128 + n when signal n ended it, 255 when its VM ended under it.")

    @OptionGroup var global: GlobalOptions
    @OptionGroup var arguments: CreateArguments

    @Flag(name: [.long, .short], help: "Return when the container has started.")
    var detach = false

    @Flag(help: "Do not delete the container when it has ended.")
    var keep = false

    func run() async throws {
        let status = try await global.reporting { logger in
            let command = RunCommand(
                arguments.options(isDetached: detach), keepsContainer: keep, try global.runtimeForServers())
            return try await command.run(logger: logger)
        }
        throw ExitCode(status)
    }
}

/// The pod's server. Other commands start it; users do not.
struct PodServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "pod-server", shouldDisplay: false)

    @OptionGroup var global: GlobalOptions

    @Flag var detached = false

    @Argument var id: String

    func run() async throws {
        try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            try await PodServer.run(
                id: id, root: global.root ?? configuration.paths.root, isDetached: detached,
                configuration: configuration, configurationFile: global.config, logger: logger)
        }
    }
}
