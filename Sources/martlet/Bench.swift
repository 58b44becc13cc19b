import ArgumentParser
import Bench
import FoundationEssentials
import Glibc

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure, and compare in interleaved runs.",
        subcommands: [BenchFiles.self, BenchNet.self, BenchPod.self, BenchStart.self])
}

/// What every bench takes.
struct BenchOptions: ParsableArguments {
    @Option(name: [.customShort("n"), .long], help: "How often each side is measured; the sides take turns.")
    var runs = 5

    @Flag(help: "Print JSON instead of a table.")
    var json = false

    @Option(help: "Write a page with a picture to this file, too.")
    var html: String?

    func validate() throws {
        if runs < 1 { throw ValidationError("-n wants a number of at least 1") }
    }

    /// Prints the report as wished.
    func show(_ report: BenchReport) throws {
        try show(page: report.page) { json ? try report.json() : report.table() }
    }

    /// Prints a report of another kind.
    func show(page: () -> String, words: () throws -> String) throws {
        if let html { try page().write(toFile: html, atomically: true, encoding: .utf8) }
        print(try words())
    }

    /// A word on standard error while a measurement takes its time.
    static func progress(_ words: String) {
        let line = Array("\(words)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
