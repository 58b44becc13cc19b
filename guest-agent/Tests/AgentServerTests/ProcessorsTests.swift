import FoundationEssentials
import Glibc
import GuestSystem
import LinuxSystem
import Testing

@testable import AgentServer

/// CPUs that are put to use and left alone, in a directory like the kernel's.
@Suite final class ProcessorsTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/martlet-cpus.XXXXXX\0".utf8CString)
        directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        for name in ["cpu0", "cpu1", "cpu10", "cpu2", "cpufreq", "cpuidle"] {
            try check("mkdir", name, mkdir("\(directory)/\(name)", 0o755))
        }
        for (number, isOnline) in [(1, "1"), (2, "0"), (10, "0")] {
            try replaceFile(
                "\(directory)/cpu\(number)/online", by: "\(directory)/new", with: Array("\(isOnline)\n".utf8))
        }
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func online() -> [String] {
        [1, 2, 10].map { ((try? readText("\(directory)/cpu\($0)/online")) ?? "").filter { !$0.isWhitespace } }
    }

    @Test func theFirstOnesRun() async throws {
        let processors = Processors(directory: directory, limit: .milliseconds(50))
        try await processors.use(3)
        #expect(online() == ["1", "1", "0"])
        // In the order of their numbers.
        try await processors.use(4)
        #expect(online() == ["1", "1", "1"])
        try await processors.use(1)
        #expect(online() == ["0", "0", "0"])
        let error = await #expect(throws: AgentFailure.self) { try await processors.use(5) }
        #expect("\(error.map { "\($0)" } ?? "")".contains("the guest has 4 CPUs, not 5"))
        #expect(online() == ["0", "0", "0"])
    }
}
