import ArgumentParser
import Glibc
import Logging
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

    func validate() throws {
        if preserveFds != 0 {
            throw ValidationError(
                "--preserve-fds \(preserveFds) is not supported: no descriptor reaches a virtual machine")
        }
    }

    func options(id: String, isDetached: Bool) -> CreateOptions {
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

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        try await global.reporting { _ in
            try await global.runtimeForServers().create(arguments.options(id: id, isDetached: true))
        }
    }
}

struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Create a container in a virtual machine, and start it.",
        usage: """
            martlet run [<options>] [--bundle <bundle>] <id>
            martlet run [<options>] --image <image> [<id>] [-- <command> …]
            """,
        discussion:
            "Exits with the container's exit code, 128 + n when signal n ended it, 255 when its VM ended under it.")

    @OptionGroup var global: GlobalOptions
    @OptionGroup var arguments: CreateArguments

    @Flag(name: [.long, .short], help: "Return when the container has started.")
    var detach = false

    @Flag(help: "Do not delete the container when it has ended.")
    var keep = false

    @Option(help: "A file that gets the trace of the run, as Chrome and Perfetto show it.")
    var trace: String?

    @Option(
        help: """
            Run an image in place of a bundle: oci:DIR[:TAG], docker-archive:FILE, docker://NAME. What the container writes is \
            gone when it has ended. Needs umoci, and skopeo unless the image is a directory.
            """)
    var image: String?

    @Argument(help: "The container's id; one is made for an image where it is missing.")
    var id: String?

    @Argument(parsing: .postTerminator, help: "With --image, after --: the command in place of the image's.")
    var command: [String] = []

    func validate() throws {
        if image == nil {
            guard id != nil else { throw ValidationError("the container's id is missing") }
            guard command.isEmpty else { throw ValidationError("a command goes with --image") }
        } else {
            guard !detach, !keep else { throw ValidationError("--image goes with neither --detach nor --keep") }
            guard arguments.bundle == "." else { throw ValidationError("--image goes without --bundle") }
        }
    }

    func run() async throws {
        let status = try await global.reporting { logger in
            let id = id ?? "run-\(String(UInt64.random(in: 0...UInt64.max), radix: 36))"
            var options = arguments.options(id: id, isDetached: detach)
            let runtime = try global.runtimeForServers()
            let bundle = try await bundle(logger)
            if let bundle { options.bundle = bundle.directory }
            defer { bundle?.remove() }
            return try await RunCommand(options, keepsContainer: keep, traceFile: trace, runtime).run(logger: logger)
        }
        throw ExitCode(status)
    }

    private func bundle(_ logger: Logger) async throws -> ImageBundle? {
        guard let image else { return nil }
        let hasTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
        return try await ProgressLine.show("getting the image \(image)") {
            try await ImageBundle.make(image: image, command: command, hasTerminal: hasTerminal, logger: logger)
        }
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
