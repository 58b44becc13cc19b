import Testing

@testable import Bench

@Suite struct StormBenchTests {
    private static let status = """
        Name:\tqemu
        VmRSS:\t  900 kB
        RssAnon:\t     300 kB
        RssFile:\t     100 kB
        RssShmem:\t     500 kB
        Threads:\t7
        """

    @Test func theGuestsMemoryDoesNotCount() {
        #expect(PodLoad.amount(status: Self.status) == .init(memory: 400 << 10, threads: 7))
    }

    /// It has no memory any more.
    @Test func aProcessThatHasEndedIsNone() {
        #expect(PodLoad.amount(status: "Name:\tqemu\nState:\tZ (zombie)\nThreads:\t1\n") == nil)
    }

    private static func report() throws -> StormReport {
        func row(_ name: String, _ values: [Double], limit: Int?) throws -> StormReport.Row {
            .init(
                name: name, summary: "s", latency: try #require(Samples(values)), memoryMiB: 60, threads: 9,
                memoryLimitMiB: limit, threadLimit: limit)
        }
        return StormReport(
            command: "martlet bench storm", facts: [.init("host", "2 CPUs")],
            rows: [
                try row("quiet", [10, 20, 30], limit: 700), try row("busy", [40], limit: 700),
                try row("ports", [100, 60], limit: nil),
            ])
    }

    @Test func ratiosAreOfMedians() throws {
        let report = try Self.report()
        #expect(report.ratio(report.rows[2], to: "quiet") == 4)
        #expect(report.ratio(report.rows[2], to: "busy") == 2)
        #expect(report.ratio(report.rows[2], to: "oom") == nil)
    }

    @Test func theTableHasARowForEachStorm() throws {
        let lines = try Self.report().table().split(separator: "\n").map {
            $0.split(separator: " ").joined(separator: " ")
        }
        #expect(lines[1] == "storm exec true, ms / quiet / busy host memory, MiB threads")
        #expect(lines[2] == "quiet 20.0 (10.0–30.0) 1.00 0.50 60 of 700 9 of 700")
        #expect(lines[4] == "ports 80.0 (60.0–100) 4.00 2.00 60 of any 9 of any")
        #expect(try Self.report().json().contains("\"memory_limit_mib\" : 700"))
    }

    @Test func stormsHaveNames() {
        #expect(Set(Storm.all.map(\.name)).count == Storm.all.count)
        #expect(Storm.all.prefix(2).map(\.name) == ["quiet", "busy"])
        #expect(Storm.all.allSatisfy { $0.arguments[2].contains("echo ready") })
    }
}
