import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import Testing

@testable import AgentServer

/// A directory with files such as a cgroup's: what the agent reads from them and writes to them.
@Suite struct CgroupTests {
    private func withGroup(_ files: [String: String], _ body: (Cgroup) async throws -> Void) async throws {
        var template = Array("/tmp/martlet-group.XXXXXX".utf8CString)
        let path = String(cString: try #require(mkdtemp(&template)))
        defer {
            for name in files.keys { unlink("\(path)/\(name)") }
            rmdir(path)
        }
        for (name, text) in files { try write(text, "\(path)/\(name)") }
        try await body(Cgroup(path: path))
    }

    private func write(_ text: String, _ path: String) throws {
        close(try check("create", path, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)))
        try writeText(text, to: path)
    }

    @Test func whatItHasCountedIsRead() async throws {
        let files = [
            "pids.current": "3\n", "pids.max": "max\n", "cpu.stat": "usage_usec 17\nnr_throttled 2\n",
            "memory.stat": "anon 4096\n", "memory.events": "oom_kill 1\n", "memory.current": "8192\n",
            "memory.max": "65536\n", "memory.peak": "9000\n", "memory.swap.current": "0\n", "memory.swap.max": "max\n",
            "io.stat": "254:0 rbytes=10 wbytes=20 dios=0\n254:16 rbytes=1\nodd\n", "hugetlb.2MB.current": "0\n",
            "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 5\n", "hugetlb.2MB.rsvd.current": "1\n",
        ]
        try await withGroup(files) { group in
            let read = group.statistics()
            #expect(read.pidsCurrent == 3 && read.pidsLimit == .max)
            #expect(read.cpu == ["usage_usec": 17, "nr_throttled": 2])
            #expect(read.memory == ["anon": 4096] && read.memoryEvents == ["oom_kill": 1])
            #expect(read.memoryUsage == 8192 && read.memoryLimit == 65536 && read.memoryPeak == 9000)
            #expect(read.swapUsage == 0 && read.swapLimit == .max)
            #expect(read.disks.map(\.minor) == [0, 16] && read.disks[0].counters["wbytes"] == 20)
            #expect(read.hugePages.map(\.pageSize) == ["2MB"] && read.hugePages[0].failures == 5)
        }
    }

    @Test func limitsAreWrittenInOrderAndNamedWhenTheyFail() async throws {
        try await withGroup(["pids.max": "", "memory.max": "", "memory.current": "5000\n"]) { group in
            var resources = Linux.Resources()
            resources.pids = .init(limit: 7)
            resources.memory = .init()
            resources.memory?.limit = 4096
            try group.apply(ResourcePlan(resources))
            #expect(try readText("\(group.path)/pids.max") == "7")
            #expect(try readText("\(group.path)/memory.max") == "4096")
            resources.memory?.checkBeforeUpdate = true
            let inUse = #expect(throws: AgentFailure.self) { try group.apply(ResourcePlan(resources)) }
            #expect(inUse?.message == "linux.resources.memory.limit: 4096 is less than the 5000 bytes in use")
            resources.memory = nil
            resources.unified = ["memory.high": "1"]
            let missing = #expect(throws: AgentFailure.self) { try group.apply(ResourcePlan(resources)) }
            #expect(
                missing?.message == "linux.resources.unified.memory.high: the guest's cgroups have no memory.high")
        }
    }

    @Test func wantOfMemoryIsToldOnce() async throws {
        try await withGroup(["memory.events": "oom_kill 1\n"]) { group in
            #expect(try group.waitOOM(seen: 0) == 1)
            async let next = blocking("oom") { () throws(AgentFailure) in try group.waitOOM(seen: 1) }
            try await Task.sleep(for: .milliseconds(100))
            try write("oom_kill 3\n", "\(group.path)/memory.events")
            #expect(try await next == 3)
            // The container goes.
            async let last = blocking("oom") { () throws(AgentFailure) in try group.waitOOM(seen: 3) }
            try await Task.sleep(for: .milliseconds(100))
            unlink("\(group.path)/memory.events")
            rmdir(group.path)
            #expect(try await last == 3)
        }
        try await withGroup([:]) { group in
            let failure = #expect(throws: AgentFailure.self) { try group.waitOOM(seen: 0) }
            #expect(failure?.kind == .failedPrecondition)
        }
    }
}
