import FoundationEssentials
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

/// What the command line keeps of containers, and what pods keep of events.
@Suite final class ContainerRecordTests {
    private let root: String

    init() throws {
        var template = Array("/tmp/martlet-records.XXXXXX".utf8CString)
        try check("mkdtemp", "", mkdtemp(&template) == nil ? -1 : 0)
        root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    private func record(_ id: String, pod: String = "p") -> ContainerRecord {
        ContainerRecord(
            id: id, bundle: "/b", rootfs: "/b/rootfs", annotations: ["a": "b"], pod: pod,
            podDirectory: "\(root)/\(pod)",
            socket: "\(root)/@/s")
    }

    @Test func anIDIsTakenOnceAndFreeAgain() throws {
        let records = ContainerRecords(root: root)
        #expect(!records.isTaken("c") && records.all() == [])
        try records.claim("c")
        #expect(records.isTaken("c") && records.read("c") == nil, "taken, not created yet")
        #expect(throws: SandboxError.self) { try records.claim("c") }
        #expect(!records.isAbandoned("c"), "its creation may have just begun")
        var written = record("c")
        written.note(pid: getpid())
        try records.write(written)
        #expect(records.read("c") == written && records.read("c")?.pid == getpid())
        #expect(records.all() == ["c"])
        records.remove("c")
        records.remove("c")
        try records.claim("c")
        records.remove("c")
        #expect(rmdir(root) == 0, "nothing is left")
    }

    @Test func aProcessThatHasEndedIsNotNamed() throws {
        var record = record("c")
        #expect(record.pid == nil)
        record.note(pid: getpid())
        record.process?.startTime = 1  // another process that had this number
        #expect(record.pid == nil)
    }

    @Test func thoseOfAPodGoWithIt() throws {
        let records = ContainerRecords(root: root)
        for (id, pod) in [("a", "p"), ("b", "q"), ("c", "p")] {
            try records.claim(id)
            try records.write(record(id, pod: pod))
        }
        records.remove(ofPod: "p")
        #expect(records.all() == ["b"])
        records.remove("b")
        #expect(rmdir(root) == 0)
    }

    @Test func containersComeAndGoAtOnce() async throws {
        try await withThrowingTaskGroup(of: Void.self) { [root] group in
            for id in ["a", "b", "c"] {
                group.addTask {
                    let records = ContainerRecords(root: root)
                    for _ in 0..<200 {
                        try records.claim(id)
                        records.remove(id)
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(rmdir(root) == 0)
    }

    @Test func timesAreRFC3339() throws {
        let now = Timestamp.now()
        #expect(now.count == 30 && now.hasSuffix("Z") && now.hasPrefix("20"), "\(now)")
        #expect(now.dropFirst(10).first == "T" && now.dropFirst(19).first == ".", "\(now)")
    }

    // MARK: Events

    private func event(_ number: Int) -> PodEvent { .started(container: "c\(number)", pid: 1) }

    @Test func eventsHaveAnyNumberOfListeners() async throws {
        let log = try EventLog()
        let waiting = (0..<5).map { _ in Task { await log.events(from: 0, within: .seconds(20)) } }
        try await Task.sleep(for: .milliseconds(100))
        log.note(event(1))
        for task in waiting {
            let (first, events) = await task.value
            #expect(first == 1 && events.map(\.event) == [event(1)])
        }
        log.note(event(2))
        let later = await log.events(from: 2, within: .zero)
        #expect(later.first == 2 && later.events.map(\.event) == [event(2)])
        let all = await log.events(from: 1, within: .zero)
        #expect(all.first == 1 && all.events.map(\.event) == [event(1), event(2)])
        let none = await log.events(from: 3, within: .milliseconds(1))
        #expect(none.first == 3 && none.events.isEmpty)
    }

    @Test func oldEventsAreForgotten() async throws {
        let log = try EventLog()
        let count = EventLog.capacity + 10
        for number in 1...count { log.note(event(number)) }
        let (first, events) = await log.events(from: 1, within: .zero)
        #expect(first == 11 && events.count == EventLog.capacity && events.last?.event == event(count))
    }
}
