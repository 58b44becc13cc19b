import FoundationEssentials
import Glibc
import Testing

extension Containers {
    @Suite struct BenchIsolationTests {
        private struct Report: Decodable {
            struct Runtime: Decodable { var name: String }
            struct Series: Decodable { var values: [Double] }
            struct Measure: Decodable {
                var key: String
                var series: [Series]
            }
            var runtimes: [Runtime]
            var measures: [Measure]
            var rounds: Int
        }

        /// The program that works in the containers, as `make agent` builds it.
        private static let load: String? = ["release", "debug"]
            .map { (build: String) -> String in "\(Lab.repository)/guest-agent/.build/\(build)/martlet-bench-guest" }
            .first { access($0, X_OK) == 0 }

        /// Every measure of Martlet's machines has a figure, those through engines too, a runtime that fails says why, and nothing is left.
        @Test(
            .enabled(if: load != nil, "no martlet-bench-guest (make agent)"),
            .enabled(if: Lab.everything, "it takes minutes where the processor is emulated (MARTLET_TEST_ALL)"))
        func machinesAreMeasuredBesideARuntimeThatFails() throws {
            try Scene.play { scene in
                let load = try #require(Self.load)
                let side = Lab.driver == .kvm ? "martlet (kvm)" : "martlet (qemu)"
                let broken = "\(scene.directory)/broken"
                try scene.write("broken", "#!/bin/sh\necho 'no luck today' >&2\nexit 3\n")
                chmod(broken, 0o755)
                let json = "\(scene.directory)/report.json"
                let page = "\(scene.directory)/page.html"
                let options = [
                    "bench", "isolation", "--quick", "--seconds", "5", "--directory", scene.directory, "--load", load,
                    "--runtime", "broken=\(broken)", "--only", side, "--only", "broken",
                ]
                let bench = try Command(
                    Lab.martlet, try scene.configuration() + options + ["--json", json, "--html", page],
                    environment: Lab.environment)
                let outcome = try bench.finish(within: .seconds(240) * Lab.patience)
                try #require(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.text.contains("not measured: broken: broken run ended without output: no luck today"))
                let text = try #require(Leftovers.read(json))
                let report = try JSONDecoder().decode(Report.self, from: Data(text.utf8))
                #expect(report.runtimes.map(\.name) == [side] && report.rounds >= 1)
                for measure in report.measures {
                    #expect(measure.series.first?.values.first ?? 0 > 0, "\(measure.key)")
                }
                #expect(Leftovers.read(page)?.contains("<svg") == true)
            }
        }

        @Test func whatIsMissingIsNamed() throws {
            func refusal(_ options: String...) throws -> String {
                let outcome = try Command(Lab.martlet, ["bench", "isolation"] + options, environment: Lab.environment)
                    .finish()
                #expect(outcome.code == 1)
                return outcome.errorText
            }
            #expect(try refusal("--compare", "/nowhere.json").contains("/nowhere.json: not a report of martlet bench"))
            #expect(try refusal("--busybox", "/nowhere").contains("--busybox /nowhere: not an executable file"))
            #expect(try refusal("--load", "/nowhere").contains("--load /nowhere: not an executable file"))
            #expect(try refusal("--json", "/nowhere/file").contains("/nowhere/file: /nowhere/: No such file"))
            #expect(try refusal("--seconds", "0").contains("--seconds must be 1 to 86400"))
        }
    }
}
