import ArgumentParser
import LinuxSystem
import PodService
import Sandbox
import Shim

/// `martlet pool …`: machines that are restored from a template before there are pods for them.
struct PoolCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pool", abstract: "Keep machines ready for pods: the next pod of their size takes one.",
        subcommands: [
            PoolFillCommand.self, PoolListCommand.self, PoolDrainCommand.self, PoolMemberCommand.self,
            PoolRefillCommand.self,
        ])
}

struct PoolFillCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fill",
        abstract: "Have machines of a size ready, restored from its template, which is made where there is none.")

    @OptionGroup var global: GlobalOptions

    @Option(name: .shortAndLong, help: "How many are to be ready; pool.size when not given, or 1.")
    var count: Int?

    @Option(help: "The machine's vCPUs; vm.vcpus when not given.")
    var vcpus: Int?

    @Option(help: "The machine's memory in MiB; vm.memory_mib when not given.")
    var memoryMib: Int?

    func validate() throws {
        guard (1...1000).contains(count ?? 1) else { throw ValidationError("--count: from 1 to 1000") }
    }

    func run() async throws {
        try await global.reporting { logger in
            let configuration = try Configuration.load(file: global.config)
            let fill = PoolFill(
                configuration, vcpus: vcpus ?? configuration.vm.vcpus,
                memoryMiB: memoryMib ?? configuration.vm.memoryMiB, count: count ?? max(1, configuration.pool.size))
            let ready = try await ProgressLine.show("filling the pool") { try await fill.run(logger: logger) }
            print("\(ready.count)")
        }
    }
}

struct PoolListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the machines that are ready.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "As JSON.")
    var json = false

    func run() async throws {
        try await global.reporting { _ in
            let members = try global.pool().members().sorted { $0.pid < $1.pid }
            if json { return try printJSON(members) }
            printTable(
                [["PID", "VCPUS", "MEMORY MIB", "TEMPLATE"]]
                    + members.map { ["\($0.pid)", "\($0.vcpus)", "\($0.memoryMiB)", $0.template] })
        }
    }
}

struct PoolDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "End the machines that are ready. Pods that have taken one go on.")

    @OptionGroup var global: GlobalOptions

    func run() async throws { try await global.reporting { _ in _ = try global.pool().drain() } }
}

/// A server of the pool; its standard input is a `PoolFill`.
struct PoolMemberCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: PoolFill.memberCommand, shouldDisplay: false)

    @OptionGroup var global: GlobalOptions

    func run() async throws {
        let program = try await global.reporting { logger in try await PoolProcess.run(.read(), logger: logger) }
        guard let program else { return }
        try await program.run {
            if program.name == "martlet" {
                try await Martlet.perform(program.arguments)
            } else {
                try await ContainerdShim.parse(program.arguments).perform()
            }
        }
    }
}

/// What a pod's server starts where `pool.size` is not 0; its standard input is a `PoolFill`.
struct PoolRefillCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: PoolFill.refillCommand, shouldDisplay: false)

    @OptionGroup var global: GlobalOptions

    func run() async throws {
        try await global.reporting { logger in try await PoolFill.read().runInBackground(logger: logger) }
    }
}

extension GlobalOptions {
    fileprivate func pool() throws -> Pool {
        Pool(directory: try Configuration.load(file: config).pool.directory)
    }
}
