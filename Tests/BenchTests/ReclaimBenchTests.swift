import Testing

@testable import Bench

@Suite struct ReclaimBenchTests {
    private static func row(_ use: String, _ before: UInt64, _ peak: UInt64, _ after: UInt64) -> ReclaimReport.Row {
        .init(side: "kvm", use: use, before: before << 20, peak: peak << 20, after: after << 20)
    }

    @Test func theFractionIsOfWhatTheUseTook() {
        #expect(Self.row("anonymous", 100, 1100, 150).returned == 0.95)
        #expect(Self.row("anonymous", 100, 1100, 1100).returned == 0)
        // Less than before is no more than all, and more than the peak no less than nothing.
        #expect(Self.row("cache", 100, 1100, 50).returned == 1)
        #expect(Self.row("cache", 100, 1100, 1200).returned == 0)
        #expect(Self.row("cache", 100, 100, 100).returned == 0)
    }

    @Test func theReportHasTheLeastOfAll() throws {
        let report = ReclaimReport(
            command: "martlet bench reclaim", facts: [.init("host", "2 CPUs")], seconds: 10,
            rows: [Self.row("anonymous", 100, 1100, 150), Self.row("cache", 100, 1100, 200)],
            missing: [.init("qemu", "no QEMU")])
        #expect(report.returned == 0.9)
        #expect(try report.json().contains("\"returned_fraction\" : 0.9\n") || report.json().contains("0.9,"))
        let lines = report.table().split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
        #expect(lines[1] == "side use before, MiB peak after 10 s returned 0.9 after")
        #expect(lines[3] == "kvm cache 100 1100 200 0.90 –")
        #expect(lines.contains("not measured: qemu: no QEMU"))
    }
}
