import ArgumentParser
import FoundationEssentials
import Glibc
import OCISpec
import PodService
import Sandbox

struct Events: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print what happens to a container until it ends, one JSON object a line: its counters, and OOM.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "The time between two reports of the counters: 5s, 1m, 500ms.")
    var interval = "5s"

    @Flag(help: "Print the counters once.")
    var stats = false

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        try await global.reporting { _ in
            guard let interval = Self.duration(interval), interval > .zero else {
                throw SandboxError.invalid("duration interval must be greater than 0: \(interval)")
            }
            let runtime = try global.runtime()
            let id = id
            if stats { return try Self.tell(.stats(await runtime.stats(id)), of: id) }
            try await runtime.events(id, interval: interval) { try Self.tell($0, of: id) }
        }
    }

    private struct Line: Encodable {
        var type: String
        var id: String
        var data: ContainerStatsReport?
    }

    private static func tell(_ event: ContainerEvent, of id: String) throws {
        switch event {
        case .stats(let report): try printJSON(Line(type: "stats", id: id, data: report), isIndented: false)
        case .oom: try printJSON(Line(type: "oom", id: id), isIndented: false)
        }
        fflush(nil)
    }

    /// As Go writes durations, with one unit; nil for what is none.
    private static func duration(_ text: String) -> Duration? {
        let units: [(String, Double)] = [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)]
        for (suffix, seconds) in units where text.hasSuffix(suffix) {
            return Double(text.dropLast(suffix.count)).map { .seconds($0 * seconds) }
        }
        return nil
    }
}

struct FeaturesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "features", abstract: "Print what is supported of the runtime specification, as JSON.")

    @OptionGroup var global: GlobalOptions

    func run() throws { try printJSON(Features.martlet) }
}
