import ArgumentParser
import PodService
import Sandbox

struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a container in the foreground, in a virtual machine.",
        discussion:
            "Exits with the container's exit code, 128 + n when signal n ended it, 255 when its VM ended under it.")

    @OptionGroup var global: GlobalOptions

    @Option(name: [.long, .short], help: "The bundle's directory, with config.json and the root file system.")
    var bundle = "."

    @Option(help: "A Unix socket that gets the terminal's master descriptor.")
    var consoleSocket: String?

    @Option(help: "A file that gets the process id.")
    var pidFile: String?

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        let status = try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            let command = RunCommand(
                id: id, bundle: bundle, root: global.root ?? configuration.paths.root, pidFile: pidFile,
                consoleSocket: consoleSocket, configurationFile: global.config, output: global.output)
            return try await command.run(logger: logger)
        }
        throw ExitCode(status)
    }
}

/// The pod's server. Other commands start it; users do not.
struct PodServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "pod-server", shouldDisplay: false)

    @OptionGroup var global: GlobalOptions

    @Argument var id: String

    func run() async throws {
        try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            try await PodServer.run(
                id: id, root: global.root ?? configuration.paths.root, configuration: configuration,
                configurationFile: global.config, logger: logger)
        }
    }
}
