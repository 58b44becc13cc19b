import ArgumentParser
import Bench
import FoundationEssentials
import Glibc

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure, and compare with others in turns.",
        subcommands: [
            BenchDisk.self, BenchFiles.self, BenchIsolation.self, BenchNet.self, BenchPod.self, BenchReclaim.self,
            BenchStart.self,
            BenchStorm.self,
        ])
}

/// The options of all benches.
struct BenchOptions: ParsableArguments {
    @Option(name: [.customShort("n"), .long], help: "How often each side is measured; the sides take turns.")
    var runs = 5

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    @Option(help: "Also write a page with a chart to this file.")
    var html: String?

    func validate() throws {
        if runs < 1 { throw ValidationError("-n must be at least 1") }
    }

    /// Prints the report in the requested format.
    func show(_ report: BenchReport) throws {
        try show(page: report.page) { json ? try report.json() : report.table() }
    }

    /// Prints a report of another kind.
    func show(page: () -> String, text: () throws -> String) throws {
        if let html { try page().write(toFile: html, atomically: true, encoding: .utf8) }
        print(try text())
    }

    /// Prints a message on standard error while a measurement runs.
    static func progress(_ message: String) {
        let line = Array("\(message)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
