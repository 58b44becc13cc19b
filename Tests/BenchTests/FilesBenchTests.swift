import Hypervisor
import Logging
import Testing

@testable import Bench

@Suite struct PhaseRecorderTests {
    private func record(_ lines: (String, UInt64)...) -> PhaseRecorder {
        var recorder = PhaseRecorder()
        for (line, time) in lines { recorder.record(line, at: time) }
        return recorder
    }

    @Test func phases() {
        let recorder = record(
            ("Linux version 6.1", 1), ("martlet-bench begin read", 1_000), ("some driver's words", 1_500),
            ("martlet-bench end read 4096", 2_001_000), ("martlet-bench begin create", 3_000_000),
            ("martlet-bench end create 10", 4_000_000), ("martlet-bench done", 5_000_000),
            ("martlet-bench failed afterwards", 6_000_000))
        #expect(recorder.isDone && recorder.failure == nil)
        #expect(
            recorder.phases == [
                .init(name: "read", amount: 4096, nanoseconds: 2_000_000),
                .init(name: "create", amount: 10, nanoseconds: 1_000_000),
            ])
        #expect(recorder.phases.map(\.rate) == [2_048_000, 10_000])
    }

    @Test func failures() {
        #expect(record(("martlet-bench failed open /share: no", 1)).failure == "open /share: no")
        #expect(record(("martlet-bench what is this", 1)).failure == "is this")
        #expect(record(("martlet-bench end read 1", 5)).failure == "out of order: end read 1")
        let late = record(("martlet-bench begin read", 5), ("martlet-bench end read 1", 5), ("martlet-bench done", 6))
        #expect(late.isDone && late.failure == nil && late.phases.isEmpty && late.missed.keys.first == "read")
        for end in ["write 1", "read", "read x", "read 1 2"] {
            let recorder = record(
                ("martlet-bench begin read", 1), ("martlet-bench end \(end)", 5), ("martlet-bench done", 6))
            #expect(recorder.failure == "out of order: end \(end)" && !recorder.isDone && recorder.phases.isEmpty)
        }
    }
}

@Suite struct FilesBenchTests {
    private func phases(_ read: UInt64) -> [PhaseRecorder.Phase] {
        FilesWorkload.figures.map { .init(name: $0.phase, amount: 10 << 20, nanoseconds: read) }
    }

    @Test func figuresComeFromTheirPhases() throws {
        let second: UInt64 = 1_000_000_000
        let comparisons = try FilesBench.compare([
            [phases(second), phases(2 * second)], [phases(second), phases(second)],
        ])
        #expect(comparisons.count == FilesWorkload.figures.count)
        #expect(comparisons[0].sides.map(\.values) == [[10, 5], [10, 10]], "MiB in a second")
        #expect(comparisons[2].sides[0].values == [Double(10 << 20), Double(5 << 20)], "pieces in a second")
        #expect(comparisons.allSatisfy { $0.better == .higher })
        #expect(throws: BenchError.self) { try FilesBench.compare([[Array(phases(second).dropFirst())]]) }
    }

    @Test func workloadGoesToTheFirstProcess() {
        var workload = FilesWorkload()
        workload.sizeMiB = 2
        workload.operations = 3
        workload.files = 4
        workload.fileBytes = 5
        #expect(workload.kernelArguments == ["--", "files", "size=2097152", "operations=3", "files=4", "file-size=5"])
    }

    @Test func withoutVirtiofsdItSaysWhatToInstall() async throws {
        let driver = QEMUDriver(executable: "/none", accelerator: .tcg, logger: Logger(label: "test"))
        let machine = VMConfiguration(
            name: "bench", vcpus: 1, memoryMiB: 128, kernel: "/none", initramfs: "/none", kernelArguments: [])
        var bench = FilesBench(driver: driver, machine: machine)
        bench.virtiofsd = "/none/virtiofsd"
        let error = await #expect(throws: BenchError.self) {
            try await bench.run(rounds: 1, command: "", progress: { _ in })
        }
        #expect(error?.description.contains("/none/virtiofsd") == true)
        #expect(error?.description.contains("qemu-system-common") == true)
    }
}
