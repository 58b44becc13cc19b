import FoundationEssentials
import Glibc
import Testing

extension Containers {
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")")) struct BenchPodTests {
        private struct Report: Decodable {
            struct Comparison: Decodable {
                struct Side: Decodable { var median: Double }
                var name: String
                var sides: [Side]
            }
            var sides: [String]
            var comparisons: [Comparison]
        }

        /// A containerd of the bench's own, asked by its CRI: both runtimes start and end pods, and nothing is left.
        @Test func podsOfTwoRuntimesAreMeasuredAndEnded() throws {
            try Scene.play { scene in
                let page = "\(scene.directory)/page.html"
                let bench = try Command(
                    Lab.martlet,
                    try scene.configuration() + [
                        "bench", "pod", "-n", "1", "--json", "--html", page, "--directory", scene.directory,
                        "--handler",
                        "martlet", "--handler", "runc",
                    ], environment: Lab.environment)
                let outcome = try bench.finish(within: .seconds(120) * Lab.patience)
                try #require(outcome.code == 0, "\(outcome.errorText)")
                let report = try JSONDecoder().decode(Report.self, from: Data(outcome.text.utf8))
                #expect(report.sides == ["martlet", "runc"])
                for comparison in report.comparisons where comparison.name != "guest memory in use" {
                    #expect(comparison.sides.allSatisfy { $0.median > 0 }, "\(comparison.name)")
                }
                #expect(report.comparisons.last?.sides.first?.median ?? 0 > 16, "MiB of the guest")
                #expect(Leftovers.read(page)?.contains("<svg") == true)
            }
        }

        @Test func whatIsMissingIsNamed() throws {
            try Scene.play { scene in
                let unknown = try Command(Lab.martlet, ["bench", "pod", "--handler", "nothing"]).finish()
                #expect(unknown.code == 1)
                #expect(unknown.errorText.contains("--handler nothing: not installed here"))
                let dead = try Command(
                    Lab.martlet, ["bench", "pod", "--address", "\(scene.directory)/no.sock", "--image", "x"]
                ).finish()
                #expect(dead.code == 1)
                #expect(dead.errorText.contains("connect to \(scene.directory)/no.sock"))
            }
        }
    }
}
