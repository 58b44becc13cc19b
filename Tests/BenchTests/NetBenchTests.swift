import Testing

@testable import Bench

@Suite struct NetBenchTests {
    private static let document = """
        {"start": {"version": "iperf 3.12"}, "end": {
          "sum_sent": {"start": 0, "end": 4, "seconds": 4, "bytes": 2100, "sender": true},
          "sum_received": {"start": 0, "end": 2, "seconds": 2, "bytes": 2000, "sender": true}}}
        """

    @Test func whatArrivedCounts() throws {
        let report = try IperfReport(Self.document)
        #expect(try report.rate(by: \.sent) == 4000)
        #expect(try report.rate(by: \.received) == 8000)
    }

    @Test(arguments: [
        (#"{"end": {}, "error": "unable to connect to server"}"#, "iperf3: unable to connect to server"),
        ("nsenter: no such thing", "iperf3 printed: nsenter: no such thing"),
        (#"{"end": {}}"#, "the report of iperf3 has no totals"),
    ])
    func failuresAreNamed(_ text: String, _ message: String) {
        do {
            _ = try IperfReport(text)
            Issue.record("taken")
        } catch { #expect("\(error)" == message) }
    }

    @Test func nothingIsNoRate() throws {
        let report = try IperfReport(Self.document.replacing("2000", with: "0"))
        #expect(throws: BenchError.self) { try report.rate(by: \.sent) }
    }

    @Test func directionsAreCompared() throws {
        let sides: [[NetBench.Rates]] = [
            [.init(toGuest: 2e9, fromGuest: 3e9)], [.init(toGuest: 1e9, fromGuest: 6e9)],
        ]
        let comparisons = try NetBench.compare(sides)
        #expect(comparisons.map(\.name) == ["host to guest", "guest to host"])
        #expect(comparisons.map { $0.ratios(to: 1)?.values } == [[2], [0.5]])
    }
}
