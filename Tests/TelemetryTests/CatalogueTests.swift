import Foundation
import Testing

@testable import Telemetry

/// What the documents say of metrics is what there is.
@Suite struct CatalogueTests {
    private static let repository = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

    private static func text(_ path: String) throws -> String {
        try String(contentsOfFile: "\(repository)/\(path)", encoding: .utf8)
    }

    @Test func namesAreAsPrometheusWantsThem() {
        #expect(Set(MetricFamily.all.map(\.name)).count == MetricFamily.all.count)
        for family in MetricFamily.all {
            #expect(family.name.wholeMatch(of: /martlet_[a-z]+(_[a-z]+)*/) != nil, "\(family.name)")
            #expect(!["total", "sum", "count", "bucket"].contains { family.name.hasSuffix("_\($0)") })
            #expect(family.help.hasSuffix("."))
            #expect(family.buckets == family.buckets.sorted() && family.buckets.isEmpty == (family.kind != .histogram))
            #expect(Set(family.labels).isDisjoint(with: ["pod", "namespace", "le"]))
        }
    }

    @Test func thePageHasEachMetric() throws {
        let rows = try Self.text("docs/metrics.md").split(separator: "\n").filter { $0.hasPrefix("| `martlet_") }
        let expected = MetricFamily.all.map { family in
            let labels = family.labels.map { "`\($0)`" }.joined(separator: ", ")
            return "| `\(family.queryName)` | \(family.kind.rawValue) | \(labels) | \(family.help) |"
        }
        #expect(rows.map(String.init) == expected)
    }

    @Test func eachQueryOfTheDashboardNamesMetricsThatExist() throws {
        let json = try JSONSerialization.jsonObject(with: Data(Self.text("configs/grafana/martlet.json").utf8))
        let dashboard = try #require(json as? [String: Any])
        #expect(dashboard["title"] as? String == "Martlet")
        #expect((dashboard["schemaVersion"] as? Int ?? 0) >= 36)
        var queries: [String] = []
        func collect(_ value: Any) {
            if let fields = value as? [String: Any] {
                for (key, value) in fields {
                    if ["expr", "query"].contains(key), let text = value as? String { queries.append(text) }
                    collect(value)
                }
            } else if let list = value as? [Any] {
                for value in list { collect(value) }
            }
        }
        collect(dashboard)
        #expect(queries.count > 10)
        let families = MetricFamily.all
        var known = Set(families.filter { $0.kind != .histogram }.map(\.queryName))
        for family in families where family.kind == .histogram {
            known.formUnion(["bucket", "sum", "count"].map { "\(family.name)_\($0)" })
        }
        let labels = Set(families.flatMap(\.labels) + ["pod", "namespace", "instance", "job", "le"])
        var used: Set<String> = []
        for query in queries where query != "prometheus" {
            let names = query.matches(of: /martlet_\w+/).map { String($0.output) }
            #expect(!names.isEmpty, "\(query)")
            #expect(Set(names).subtracting(known).isEmpty, "\(query)")
            for group in query.matches(of: /(?:by|without) \(([^)]*)\)/) {
                let grouped = group.output.1.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
                #expect(labels.isSuperset(of: grouped), "\(query)")
            }
            used.formUnion(names)
        }
        #expect(used.count > 15, "the dashboard shows most of what there is")
    }
}
