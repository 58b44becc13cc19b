import FoundationEssentials
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

@Suite final class StateDirectoryTests {
    private let temporary: String

    init() throws {
        var template = Array("/tmp/martlet-state.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        temporary = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: temporary) }

    @Test func anIdIsTakenOnceAndFreeAgain() throws {
        let root = temporary + "/deep/er"
        let directory = StateDirectory(root: root, id: "a")
        let lock = try directory.create()
        #expect(throws: SandboxError.self) { try StateDirectory(root: root, id: "a").create() }
        try directory.write(.init(id: "a", bundle: "/b"))
        #expect(directory.read() == .init(id: "a", bundle: "/b"))
        directory.sweep()
        #expect(access(directory.path, F_OK) != 0)
        _ = try directory.create()
        directory.sweep()
        _ = lock
    }

    /// Nobody else on the host may read a pod's state, or connect to its server: its sockets have paths, and only their owner
    /// may write to them (CVE-2024-25621 and CVE-2020-15257 of containerd).
    @Test func theStateIsItsOwners() throws {
        let root = temporary + "/root"
        let directory = StateDirectory(root: root, id: "a")
        let lock = try directory.create()
        let listeners = try directory.listen(below: root)
        defer { withExtendedLifetime((lock, listeners)) {} }
        var status = stat()
        #expect(lstat(directory.path, &status) == 0 && status.st_mode == S_IFDIR | 0o700)
        let sockets = try readText("/proc/net/unix").split(separator: "\n").compactMap { line in
            line.contains(temporary) ? line.split(separator: " ").last : nil
        }
        #expect(sockets.count == 2)
        for socket in sockets {
            #expect(socket.hasPrefix("/"), "\(socket) is abstract")
            #expect(lstat(String(socket), &status) == 0 && status.st_mode & 0o077 == 0, "\(socket)")
        }
    }

    @Test func aPodIsFoundByTheBeginningOfItsId() throws {
        let pods = ["abc", "abd", "x", "xy"].map {
            PodEntry(id: $0, namespace: "", isRunning: true, pid: 1, bundle: "", directory: "", socket: "")
        }
        #expect(try PodList.find("abc", in: pods).id == "abc")
        #expect(try PodList.find("x", in: pods).id == "x", "the whole of one is that one")
        #expect(try PodList.find("xy", in: pods).id == "xy")
        func refusal(_ name: String) -> String? {
            (#expect(throws: SandboxError.self) { try PodList.find(name, in: pods) })?.description
        }
        #expect(refusal("ab") == "pod ab: 2 pods begin so: abc, abd")
        #expect(refusal("q") == "pod q does not exist")
        #expect(refusal("") == "pod  does not exist")
    }

    /// Creations that were killed between two of their steps, and one that is under way.
    @Test func whatAKilledCreationLeavesIsRemoved() throws {
        let listening = StateDirectory(root: temporary, id: "listening")
        var lock: SharedDescriptor? = try listening.create()
        var listeners: StateDirectory.Listeners? = try listening.listen(below: temporary)
        let living = StateDirectory(root: temporary, id: "living")
        let held = try living.create()
        mkdir("\(temporary)/made", 0o700)
        mkdir("\(temporary)/of another", 0o700)
        try PodList.cleanUnfinished(root: temporary)
        #expect(try directoryNames(temporary).sorted() == ["@", "listening", "living", "of another"])
        withExtendedLifetime((lock, listeners)) {}
        (lock, listeners) = (nil, nil)
        try PodList.cleanUnfinished(root: temporary)
        #expect(try directoryNames(temporary).sorted() == ["living", "of another"])
        living.sweep()
        rmdir("\(temporary)/of another")
        withExtendedLifetime(held) {}
    }

    /// A server that dies before it has written anything down itself.
    @Test func aSocketIsRemovedWithItsDirectory() throws {
        let directory = StateDirectory(root: temporary, id: String(repeating: "a", count: 255))
        let lock = try directory.create()
        let listeners = try directory.listen(below: temporary)
        let socket = listeners.socket
        #expect(directory.read()?.socket == socket && socket.utf8.count <= 107)
        _ = try UnixAddress.connect(socket)
        directory.sweep()
        #expect(rmdir(temporary) == 0, "nothing else is left")
        withExtendedLifetime((lock, listeners)) {}
    }

    @Test func aNamespacesDirectoryEndsWithItsLastPod() throws {
        let root = StateDirectory.root(ofNamespace: "n", below: temporary)
        let pods = ["a", "b"].map { StateDirectory(root: root, id: $0) }
        let locks = try pods.map { try $0.create() }
        pods[0].sweep()
        #expect(access(root, F_OK) == 0)
        pods[1].sweep()
        #expect(access(root, F_OK) != 0 && access(temporary, F_OK) == 0)
        withExtendedLifetime(locks) {}
    }

    /// One pod's end removes the directory that another one has just made.
    @Test func podsComeAndGoAtOnce() async throws {
        let root = StateDirectory.root(ofNamespace: "n", below: temporary)
        try await withThrowingTaskGroup(of: Void.self) { [temporary] group in
            for id in ["a", "b", "c"] {
                group.addTask {
                    let directory = StateDirectory(root: root, id: id)
                    for _ in 0..<300 {
                        let lock = try directory.create()
                        let listeners = try directory.listen(below: temporary)
                        directory.sweep()
                        withExtendedLifetime((lock, listeners)) {}
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(rmdir(temporary) == 0, "nothing is left")
    }

    @Test func whatADeadServerLeftIsCleared() async throws {
        let root = temporary
        let directory = StateDirectory(root: root, id: "a")
        var lock: SharedDescriptor? = try directory.create()
        let child = try ChildProcess(
            "sleep", .init(executable: "/bin/sleep", arguments: ["60"], descriptors: [-1, -1, -1]))
        let record = try #require(StateDirectory.ProcessRecord(name: "sleep", pid: child.pid))
        var other = record
        other.pid = getpid()
        other.startTime = 1  // another process that had this number
        try directory.write(.init(id: "a", bundle: "/b", processes: [record, other]))
        #expect(lock != nil)
        lock = nil  // the server has died
        _ = try directory.create()
        #expect(await child.end() == .signaled(SIGKILL))
        directory.sweep()
        rmdir(root)
    }
}
