import ArgumentParser
import Sandbox

/// `martlet spec`.
struct SpecCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "spec", abstract: "Write a config.json to start from.",
        usage: "martlet spec [<options>] [-- <program> <argument> ...]")

    @OptionGroup var global: GlobalOptions

    @Option(name: [.long, .short], help: "The directory that gets config.json.")
    var bundle = "."

    @Option(help: "The root file system (root.path): absolute, or relative to the bundle; rootfs when not given.")
    var rootfs: String?

    @Option(help: "Whether the process has a terminal (process.terminal): true, the default, or false.")
    var terminal: Bool?

    @Flag(help: "The same as --terminal=false.")
    var noTerminal = false

    @Option(
        name: .customLong("arg"), parsing: .unconditionalSingleValue,
        help: "The program, then an argument of it each time it is given (process.args); sh when not given.")
    var arguments: [String] = []

    @Argument(parsing: .postTerminator, help: "More of process.args, behind those of --arg.")
    var rest: [String] = []

    func validate() throws {
        if noTerminal, terminal == true { throw ValidationError("--no-terminal contradicts --terminal=true") }
    }

    func run() async throws {
        let all = arguments + rest
        let changes = SpecChanges(
            arguments: all.isEmpty ? nil : all, terminal: noTerminal ? false : terminal, rootfs: rootfs)
        try await global.reporting { _ in try writeStandardSpec(bundle: bundle, changes: changes) }
    }
}
