import AgentContract
import ArgumentParser
import FoundationEssentials
import Hypervisor
import Jail
import OCISpec
import Sandbox

struct Plan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print what running a bundle would do, as JSON; starts nothing.")

    @OptionGroup var global: GlobalOptions

    @Option(name: .long, help: "The pod's id in the plan.")
    var id = "plan"

    @Argument(help: "The bundle's directory.")
    var bundle = "."

    func run() async throws {
        try await global.reporting { _ in
            let plan = try SandboxPlan(
                id: id, bundle: Bundle(directory: bundle), configuration: Configuration.load(file: global.config))
            try printJSON(Printed(plan: plan, jails: plan.jails()))
        }
    }

    /// The plan's own fields, and the jails beside them.
    private struct Printed: Encodable {
        var plan: SandboxPlan
        var jails: [JailPlan]

        private enum Key: CodingKey { case jails }

        func encode(to encoder: any Encoder) throws {
            try plan.encode(to: encoder)
            var fields = encoder.container(keyedBy: Key.self)
            try fields.encode(jails, forKey: .jails)
        }
    }
}

struct Check: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what this host offers, which hypervisor will be used, and what crashed pods have left.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "Remove what is left of pods whose servers have died.")
    var clean = false

    func run() async throws {
        try await global.reporting { _ in
            let configuration = try Configuration.load(file: global.config)
            let report = hostReport(configuration)
            for line in report.lines { print(line) }
            if PodUser.isShared(configuration.jail) {
                print("users: this user namespace has a single id, so all pods run as the same user")
            }
            let root = global.root ?? configuration.paths.root
            let dead = clean ? PodList.clean(root: root) : PodList.all(root: root).filter { !$0.isRunning }
            for pod in dead {
                print(
                    "pod \(pod.id): its server has died; \(clean ? "removed" : "--clean removes") \(pod.directory)"
                )
            }
            if !report.usable { throw ExitCode(1) }
        }
    }
}

struct Version: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print the version.")
    static let text = "martlet version \(martletVersion)\nspec: \(specVersion)"

    func run() async throws {
        print(Self.text)
    }
}
