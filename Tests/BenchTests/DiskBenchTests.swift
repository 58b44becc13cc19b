import FoundationEssentials
import Hypervisor
import Logging
import Testing

@testable import Bench

@Suite struct DiskBenchTests {
    /// The phases of `rounds` rounds and of the one before them. In one second Martlet's disk moves twice as much as the threads' and
    /// four times as much as the other.
    private static let sides: [DiskSide] = [.martlet, .qemuRing, .qemuThreads]

    private func phases(rounds: Int) -> [PhaseRecorder.Phase] {
        (0...rounds).flatMap { round in
            DiskWorkload.patterns.flatMap { pattern in
                zip(Self.sides, [64, 16, 32]).map { side, mib in
                    PhaseRecorder.Phase(
                        name: DiskRun.phase(pattern, side), amount: round == 0 ? 1 : mib << 20,
                        nanoseconds: 1_000_000_000)
                }
            }
        }
    }

    @Test func figuresComeFromTheirPhases() throws {
        let comparisons = try DiskBench.compare(phases(rounds: 3), Self.sides, rounds: 3, warmUps: 1)
        #expect(comparisons.count == 8 && Set(comparisons.map(\.name)).count == 8)
        #expect(comparisons[0].name == "sequential read, depth 1" && comparisons[0].unit == "MiB/s")
        #expect(comparisons[0].sides.map(\.values) == [[64, 64, 64], [16, 16, 16], [32, 32, 32]])
        #expect(comparisons[7].name == "random write, depth 32" && comparisons[7].unit == "writes/s")
        #expect(comparisons[7].sides[0].values == [16384, 16384, 16384])
        #expect(comparisons.allSatisfy { $0.better == .higher && $0.ratioToBest == 2 })
        #expect(throws: BenchError.self) {
            try DiskBench.compare(phases(rounds: 2), Self.sides, rounds: 3, warmUps: 1)
        }
        #expect(throws: BenchError.self) {
            try DiskBench.compare(phases(rounds: 3).dropLast(), Self.sides, rounds: 3, warmUps: 1)
        }
    }

    @Test func aRatioIsToTheBestOfTheOthers() throws {
        func samples(_ values: [Double]) throws -> Samples { try #require(Samples(values)) }
        let three = Comparison(
            "x", unit: "1/s", better: .higher,
            sides: [try samples([10, 10, 30]), try samples([5, 10, 10]), try samples([20, 8, 60])])
        // Medians of 2, 1, 3 and of 0.5, 1.25, 0.5.
        #expect(three.ratioToBest == 0.5)
        #expect(Comparison("x", unit: "ms", better: .lower, sides: [try samples([1])]).ratioToBest == nil)
    }

    @Test func theReportHasTheRatios() throws {
        let comparisons = try DiskBench.compare(phases(rounds: 1), Self.sides, rounds: 1, warmUps: 1)
        let report = BenchReport(
            title: "t", command: "c", sides: Self.sides.map(\.rawValue), facts: [], comparisons: comparisons,
            ratios: ["sequential read, depth 1": 2])
        struct Ratios: Decodable { var ratios: [String: Double]? }
        let decoder = JSONDecoder()
        #expect(
            try decoder.decode(Ratios.self, from: Data(report.json().utf8)).ratios == ["sequential read, depth 1": 2])
        #expect(try decoder.decode(BenchReport.self, from: Data(report.json().utf8)) == report)
        let without = BenchReport(title: "t", command: "c", sides: [], facts: [], comparisons: [])
        #expect(try !without.json().contains("ratios"))
    }

    @Test func workloadGoesToTheFirstProcess() {
        var workload = DiskWorkload()
        workload.milliseconds = 7
        #expect(
            workload.kernelArguments(disks: Self.sides, rounds: 3)
                == ["--", "disk", "disks=martlet,io_uring,threads", "rounds=3", "milliseconds=7", "depths=1,32"])
    }

    @Test func disksOfQEMU() {
        #expect(DiskSide.martlet.arguments(path: "/a") == nil)
        #expect(
            DiskSide.qemuRing.arguments(path: "/a,b") == [
                "-drive", "file=/a,,b,if=none,id=io_uring,format=raw,cache=none,aio=io_uring,file.locking=off",
                "-device", "virtio-blk-pci,drive=io_uring,serial=io_uring",
            ])
    }
}
