import Foundation
import Testing

@testable import Bench

#if canImport(FoundationXML)
    import FoundationXML
#endif

@Suite struct IsolationReportTests {
    /// Some measures are enough.
    private static let some = IsolationMeasure.all.filter {
        ["start", "exec", "memory-1", "getpid", "files-root", "tcp-stream"].contains($0.key)
    }

    /// A report of runc and two others; `factor` makes the second of them slower.
    private func report(seed: UInt64 = 1, factor: Double = 1, count: Int = 12, banner: String? = nil) -> IsolationReport
    {
        let names = ["runc", "crun", "slow <& \"quoted\">"]
        let costs = [1, 0.5, 3 * factor]
        let measures = Self.some.enumerated().map { place, measure in
            var series = names.indices.map { side in
                let middle = measure.better == .lower ? 100 * costs[side] : 100 / costs[side]
                let values = BootstrapTests.noisy(middle, 0.04, count: count, seed: seed &+ UInt64(place * 10 + side))
                return IsolationReport.Series(
                    runtime: side, values: values.enumerated().map { ($0 + 1, $1) }, warmUp: middle * 2)
            }
            if measure.key == "exec" {
                series[2] = IsolationReport.Series(runtime: 2, values: [], failure: "exec <b>failed</b>")
            }
            let baseline = series[0]
            for side in series.indices { series[side].compare(with: baseline, better: measure.better) }
            return IsolationReport.Measure(
                key: measure.key, name: measure.name, unit: measure.unit, better: measure.better, series: series)
        }
        var runtimes = names.map { OCIRuntime($0, program: "/usr/bin/\($0)") }
        runtimes[0].version = "runc version 1.1.5"
        return IsolationReport(
            command: "martlet bench isolation", date: "2026-01-01T00:00:00Z", runtimes: runtimes, baseline: 0,
            missing: [.init("youki", "it failed & left")], banner: banner, warnings: ["swap is in use"],
            facts: [.init("host", "2 CPUs")], rounds: count, measures: measures)
    }

    @Test func costsAreAboveOneWhereItCostsMore() throws {
        let report = report()
        for key in ["start", "tcp-stream"] {
            let measure = try #require(report.measures.first { $0.key == key })
            #expect(abs(try #require(measure.series[1].cost).median - 0.5) < 0.05, "\(key)")
            #expect(abs(try #require(measure.series[2].cost).median - 3) < 0.3, "\(key)")
        }
    }

    @Test func jsonRoundTrip() throws {
        let scene = try IsolationScene()
        let report = report(banner: "THE EMULATOR'S CLOCK")
        let file = try scene.write("report.json", try report.json())
        #expect(try IsolationReport.read(file) == report)
        let text = try report.json()
        #expect(text.contains("\"warm_up\"") && text.contains("\"low\"") && text.contains("\"rounds\" : 12"))
        for bad in ["", "{}", "[1]", text.replacingOccurrences(of: "\"version\" : 1,", with: "\"version\" : 2,")] {
            let file = try scene.write("bad.json", bad)
            let error = #expect(throws: BenchError.self) { try IsolationReport.read(file) }
            #expect(error?.description.hasPrefix(file) == true)
        }
        // A runtime that is not there would trap when its name is looked up.
        let hostile = try scene.write(
            "bad.json", text.replacingOccurrences(of: "\"runtime\" : 2", with: "\"runtime\" : 7"))
        #expect(throws: BenchError.self) { try IsolationReport.read(hostile) }
        #expect(throws: BenchError.self) { try IsolationReport.read("\(scene.path)/none.json") }
    }

    @Test func aPlantedChangeIsNamed() {
        let old = report()
        let changes = report(seed: 99, factor: 1.2).changes(since: old)
        #expect(changes.count == Self.some.count - 1, "all measures of one runtime, but the one that failed")
        #expect(changes.allSatisfy { $0.hasPrefix("worse: slow") }, "rates that sink are worse too")
        #expect(changes[0].contains("start to first output: ") && changes[0].contains(" ms (+2"))
        let back = old.changes(since: report(seed: 99, factor: 1.2))
        #expect(back.allSatisfy { $0.hasPrefix("better: slow") } && back.count == changes.count)
    }

    @Test func noiseIsNoChange() {
        #expect(report(seed: 77).changes(since: report()) == ["no change beyond noise"])
        // 2 % is there, and too little to name.
        #expect(report(seed: 77, factor: 1.02).changes(since: report()) == ["no change beyond noise"])
        // Of two values each nobody knows.
        #expect(
            report(seed: 5, factor: 1.5, count: 2).changes(since: report(count: 2)) == [
                "no change beyond noise", "of 17 of 17 figures there are too few rounds to tell (--seconds)",
            ])
        var other = report()
        other.runtimes = other.runtimes.map { OCIRuntime("\($0.name) 2", program: $0.program) }
        #expect(report().changes(since: other).first?.hasPrefix("nothing to compare") == true)
    }

    @Test func theTableShowsReasons() {
        let report = report(banner: "THE EMULATOR'S CLOCK: x")
        let text = report.table()
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines[1] == "THE EMULATOR'S CLOCK: x" && lines.contains("warning: swap is in use"))
        #expect(lines.contains("(1) slow <& \"quoted\">: exec <b>failed</b>"))
        #expect(lines.contains { $0.hasPrefix("exec of `true`") && $0.hasSuffix("– (1)") })
        #expect(lines.contains("not measured: youki: it failed & left"))
        #expect(lines.contains("runc: runc version 1.1.5"))
        #expect(text.contains("Medians of 12 rounds with their 95 % intervals"))
        #expect(lines.contains { $0.hasPrefix("crun: starts a container in 5") && $0.contains("(0.5") })
    }

    @Test func driftIsShown() {
        let values = (1...8).map { ($0, $0 > 4 ? 120.0 : 100.0) }
        var report = report()
        report.measures[0].series[1] = .init(runtime: 1, values: values)
        #expect(report.measures[0].series[1].drift == 1.2)
        #expect(report.drifts().contains("crun, start to first output +20 %"))
        #expect(self.report(count: 3).drifts() == "Drift: too few rounds to tell.")
        #expect(self.report().drifts().hasPrefix("Drift: no median"))
    }

    /// A reader of XML takes it, but for the doctype and the tags that HTML leaves open.
    @Test func thePageStandsAlone() throws {
        let report = report(banner: "THE EMULATOR'S CLOCK: x")
        let page = report.page(changes: ["worse: a < b"])
        for word in ["http", "<script", "src=", "href=", "url(", "@import", "<b>failed</b>"] {
            #expect(!page.contains(word), "\(word)")
        }
        #expect(page.contains("prefers-color-scheme: dark") && page.contains("color-scheme: light dark"))
        #expect(page.contains("name=\"viewport\"") && page.contains("max-width: 640px"))
        #expect(page.contains("worse: a &lt; b") && page.contains("exec &lt;b&gt;failed&lt;/b&gt;"))
        var xml = page
        for (html, closed) in [
            ("<!DOCTYPE html>\n", ""), ("<meta charset=\"utf-8\">", "<meta charset=\"utf-8\"/>"),
            ("initial-scale=1\">", "initial-scale=1\"/>"),
        ] { xml = xml.replacingOccurrences(of: html, with: closed) }
        let parser = XMLParser(data: Data(xml.utf8))
        let elements = Elements()
        parser.delegate = elements
        #expect(parser.parse(), "\(String(describing: parser.parserError)), line \(parser.lineNumber)")
        #expect(elements.counts["section"] == Self.some.count + 1)
        // A bar for each runtime and measure, but for the one that failed.
        #expect(elements.counts["svg"] == 3 * Self.some.count - 1 && elements.counts["svg"] == elements.counts["rect"])
        // The sentences come first.
        let sentence = try #require(page.range(of: "starts a container in"))
        let first = try #require(page.range(of: "<svg"))
        #expect(sentence.lowerBound < first.lowerBound)
    }

    private final class Elements: NSObject, XMLParserDelegate {
        var counts: [String: Int] = [:]
        func parser(
            _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
            attributes: [String: String]
        ) { counts[name, default: 0] += 1 }
    }
}
