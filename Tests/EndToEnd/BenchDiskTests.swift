import FoundationEssentials
import Glibc
import Testing

extension Containers {
    @Suite struct BenchDiskTests {
        private struct Report: Decodable {
            struct Series: Decodable { var values: [Double] }
            struct Comparison: Decodable {
                var name: String
                var sides: [Series]
            }
            var sides: [String]
            var comparisons: [Comparison]
            var ratios: [String: Double]
        }

        private static let guest = "\(Lab.repository)/.build/guest/bench/initramfs.cpio"

        /// Every pattern has a figure for each disk, and a ratio.
        @Test(
            .enabled(if: Lab.driver == .qemu, "the bench runs under QEMU"),
            .enabled(if: access(guest, R_OK) == 0, "no guest of martlet bench (make guest-bench)"))
        func eachDiskIsMeasured() throws {
            try Scene.play { scene in
                let bench = try Command(
                    Lab.martlet,
                    [
                        "bench", "disk", "-n", "1", "--milliseconds", "20", "--size-mib", "16", "--directory",
                        scene.directory, "--json",
                    ], environment: Lab.environment)
                let outcome = try bench.finish(within: .seconds(120) * Lab.patience)
                try #require(outcome.code == 0, "\(outcome.errorText)")
                let report = try JSONDecoder().decode(Report.self, from: Data(outcome.text.utf8))
                #expect(report.sides == ["Martlet", "QEMU, io_uring", "QEMU, threads"])
                #expect(report.comparisons.count == 8)
                #expect(Set(report.comparisons.map(\.name)) == Set(report.ratios.keys))
                for comparison in report.comparisons {
                    #expect(comparison.sides.count == 3, "\(comparison.name)")
                    #expect(comparison.sides.allSatisfy { $0.values.count == 1 && $0.values[0] > 0 })
                }
                #expect(report.ratios.values.allSatisfy { $0 > 0 })
                #expect(Leftovers.list(scene.directory).allSatisfy { !$0.hasPrefix("martlet-bench-disk") })
            }
        }

        @Test func whatIsMissingIsNamed() throws {
            func refusal(_ options: String...) throws -> String {
                let outcome = try Command(Lab.martlet, ["bench", "disk"] + options, environment: Lab.environment)
                    .finish()
                #expect(outcome.code != 0)
                return outcome.errorText
            }
            #expect(try refusal("--size-mib", "1").contains("--size-mib must be 16 to 1048576"))
            #expect(try refusal("--kernel", "/nowhere").contains("/nowhere"))
        }
    }
}
