import Glibc
import Testing

@testable import Bench

@Suite struct PodBenchTests {
    @Test func aPodsProcessesDescendFromItsShim() {
        let processes = [(10, 1), (11, 10), (12, 11), (13, 12), (20, 1), (21, 20)].map {
            PodProcesses.Entry(pid: $0.0, parent: $0.1)
        }
        #expect(PodProcesses.descendants(of: 11, among: processes) == [11, 12, 13])
        #expect(PodProcesses.descendants(of: 21, among: processes) == [21])
    }

    @Test func aPodWithoutAShimIsNamed() throws {
        let error = #expect(throws: BenchError.self) { try PodProcesses.memory(ofSandbox: "none") }
        #expect(error?.description == "no shim of containerd has the argument -id none")
    }

    @Test func stepsAndMemoryAreCompared() throws {
        func run(_ factor: Double) -> PodRun {
            PodRun(
                sandbox: 100 * factor, create: 10 * factor, start: 1 * factor, end: 5 * factor,
                memory: ProcessMemory(
                    process: "all", privateKiB: Int(2048 * factor), proportionalKiB: Int(4096 * factor)))
        }
        let comparisons = try PodBench.compare([[run(2)], [run(1)]])
        #expect(comparisons[0].sides.map(\.values) == [[222], [111]])
        #expect(comparisons.first { $0.name.hasPrefix("private") }?.sides.map(\.values) == [[4], [2]])
        #expect(comparisons.allSatisfy { $0.better == .lower })
        // Half as good; of no guest memory there is no ratio.
        #expect(comparisons.dropLast(2).allSatisfy { $0.ratios(to: 1)?.values == [0.5] })
        #expect(comparisons.last?.ratios(to: 1) == nil)
    }

    @Test func anImageIsWhatDockerSaves() throws {
        var template = Array("/tmp/martlet-image.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let archive = try BusyboxImage(directory: directory).archive(busybox: "/bin/true")
        let handle = try #require(
            popen("tar -tf \(archive) && tar -xOf \(archive) config.json && rm -r \(directory)", "r"))
        var text = [UInt8](repeating: 0, count: 4096)
        let count = fread(&text, 1, text.count, handle)
        #expect(pclose(handle) == 0)
        let output = String(decoding: text.prefix(count), as: UTF8.self)
        #expect(output.hasPrefix("manifest.json\nconfig.json\nlayer.tar\n"))
        #expect(output.contains(try Regex(#""diff_ids": \["sha256:[0-9a-f]{64}"\]"#)))
    }
}
