import FoundationEssentials
import Testing

@testable import Bench

@Suite struct ReportTests {
    private func samples(_ values: Double...) throws -> Samples { try #require(Samples(values)) }

    private func report() throws -> BenchReport {
        BenchReport(
            title: "A & B", command: "martlet bench <x>", sides: ["ours", "theirs"],
            facts: [.init("host", "2 processors")],
            comparisons: [
                Comparison(
                    "read", unit: "MiB/s", better: .higher,
                    sides: [try samples(200, 100, 400), try samples(100, 100, 100)]),
                Comparison("start", unit: "ms", better: .lower, sides: [try samples(1, 1, 1), try samples(2, 3, 4)]),
            ])
    }

    @Test func ratiosAreOfOneRoundEach() throws {
        let comparisons = try report().comparisons
        #expect(comparisons[0].ratios(to: 1)?.values == [2, 1, 4])
        // Less is better: twice the time is half as good.
        #expect(comparisons[1].ratios(to: 1)?.values == [2, 3, 4])
        #expect(comparisons[0].ratios(to: 0)?.values == [1, 1, 1])
        #expect(comparisons[0].ratios(to: 2) == nil)
        let nothing = Comparison("x", unit: "", better: .higher, sides: [try samples(1), try samples(0)])
        #expect(nothing.ratios(to: 1) == nil)
    }

    @Test func sidesTakeTurns() async throws {
        var order: [String] = []
        let results = await Rounds.run(2, of: ["A", "B"]) { round, side in
            order.append("\(side)\(round)")
            return order.count
        }
        #expect(order == ["A0", "B0", "A1", "B1", "A2", "B2"])
        #expect(results == [[3, 5], [4, 6]], "the first round does not count")
        struct Stop: Error {}
        await #expect(throws: Stop.self) {
            _ = try await Rounds.run(3, of: ["A"]) { round, _ in if round == 1 { throw Stop() } }
        }
    }

    @Test func table() throws {
        let lines = try report().table().split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(lines[0] == "A & B")
        #expect(lines[2] == "                         ours            theirs          × theirs")
        #expect(lines[3] == "read, MiB/s     200 (100–400)     100 (100–100)  2.00 (1.00–4.00)")
        #expect(lines[4].hasPrefix("start, ms"))
        #expect(Set(lines[2...4].map(\.count)).count == 1, "columns of one width")
        #expect(lines.last == "host: 2 processors")
    }

    @Test func json() throws {
        let report = try report()
        let text = try report.json()
        #expect(try JSONDecoder().decode(BenchReport.self, from: Data(text.utf8)) == report)
        #expect(text.contains("\"median\" : 200"))
        for values in ["[]", "[\"1\"]", "1"] {
            let bytes = Data("{\"values\":\(values)}".utf8)
            #expect(throws: DecodingError.self) { try JSONDecoder().decode(Samples.self, from: bytes) }
        }
    }

    @Test func pageStandsAlone() throws {
        let page = try report().page()
        #expect(page.hasPrefix("<!DOCTYPE html>"))
        #expect(page.contains("<h1>A &amp; B</h1>") && page.contains("martlet bench &lt;x&gt;"))
        #expect(!page.contains("http") && !page.contains("<script") && !page.contains("src="))
        #expect(page.contains("<td>2.00 (1.00–4.00)</td>"))
    }

    @Test func bars() throws {
        let report = try report()
        let svg = BarChart(report: report).svg()
        // A bar for each side of each comparison, and the legend's two squares.
        #expect(svg.components("<rect ") == 2 * 2 + 2)
        #expect(svg.components("<circle ") == 4 * 3)
        // The longest run ends at the plot's end (190 + 470), the median of the same side is half as long.
        #expect(svg.contains("width=\"235.0\"") && svg.contains("cx=\"660.0\""))
        #expect(svg.contains("ms (less is better)") && svg.contains("×2.00"))
        let flat = Comparison("x", unit: "y", better: .higher, sides: [try samples(0)])
        let empty = BenchReport(title: "", command: "", sides: ["a"], facts: [], comparisons: [flat])
        #expect(BarChart(report: empty).svg().contains("width=\"0.0\""))
    }

    @Test func markup() { #expect(Markup.escape("<a b=\"c\"> & d") == "&lt;a b=&quot;c&quot;&gt; &amp; d") }
}

extension String {
    /// How often a text is in this one.
    fileprivate func components(_ text: String) -> Int { ranges(of: text).count }
}
