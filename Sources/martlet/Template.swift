import ArgumentParser
import PodService
import Sandbox

/// `martlet template …`: machines that were saved when their agent was ready, from which pods start.
struct TemplateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "template", abstract: "Make, list, remove and check the templates that pods start from.",
        subcommands: [
            TemplateCreateCommand.self, TemplateListCommand.self, TemplateRemoveCommand.self,
            TemplateCheckCommand.self, TemplateMakeCommand.self,
        ])
}

struct TemplateCreateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make the template of a pod of this size, as the configuration is now.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "The pod's vCPUs; vm.vcpus when not given.")
    var vcpus: Int?

    @Option(help: "The machine's memory in MiB; vm.memory_mib when not given.")
    var memoryMib: Int?

    func run() async throws {
        try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            let entry = try await ProgressLine.show("making the template") {
                try await TemplateMaker(configuration, logger: logger).make(
                    vcpus: vcpus ?? configuration.vm.vcpus, memoryMiB: memoryMib ?? configuration.vm.memoryMiB)
            }
            print(entry.name)
        }
    }
}

/// What a pod's server starts where `template.mode` is `auto`; its standard input is a `BackgroundTemplate`.
struct TemplateMakeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: BackgroundTemplate.command, shouldDisplay: false)

    @OptionGroup var global: GlobalOptions

    func run() async throws {
        try await global.reporting { logger in try await BackgroundTemplate.read().make(logger: logger) }
    }
}

struct TemplateListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the templates.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "As JSON.")
    var json = false

    func run() async throws {
        try await global.reporting { _ in
            let entries = TemplateStore(directory: try Configuration.load(file: global.config).template.directory)
                .list()
            if json { return try printJSON(entries) }
            printTable(
                [["TEMPLATE", "VCPUS", "MEMORY MIB", "SIZE MIB", "TENANT"]]
                    + entries.map { entry in
                        [
                            entry.name, "\(entry.shape.vcpus)", "\(entry.shape.memoryMiB)",
                            "\((entry.bytes + (1 << 19)) >> 20)", entry.shape.tenant.isEmpty ? "-" : entry.shape.tenant,
                        ]
                    })
        }
    }
}

struct TemplateRemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove templates. Pods that have started from them go on.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "Remove all templates.")
    var all = false

    @Argument(help: "The templates' names.")
    var names: [String] = []

    func validate() throws {
        guard all != !names.isEmpty else { throw ValidationError("give either names or --all") }
    }

    func run() async throws {
        try await global.reporting { _ in
            let store = TemplateStore(directory: try Configuration.load(file: global.config).template.directory)
            for name in all ? store.names() : names { try store.remove(name) }
        }
    }
}

struct TemplateCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Start a machine from each template, and have its agent answer.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The templates' names; all when not given.")
    var names: [String] = []

    func run() async throws {
        try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            let maker = TemplateMaker(configuration, logger: logger)
            let store = TemplateStore(directory: configuration.template.directory)
            for name in names.isEmpty ? store.names() : names {
                try await maker.check(name)
                print("\(name): good")
            }
        }
    }
}
