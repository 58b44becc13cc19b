import Glibc
import LinuxSystem
internal import SwiftProtobuf
import Synchronization
internal import TaskAPI
import Testing

@testable import TTRPC

/// containerd's shim for runc at the other end: our client calls its Task service, and it sends its events to our
/// server.
@Suite(.serialized, .timeLimit(.minutes(2))) struct ShimTests {
    private static let shimProgram = "/usr/bin/containerd-shim-runc-v2"
    private static var runnable: Bool {
        geteuid() == 0 && access(shimProgram, X_OK) == 0 && access("/bin/busybox", X_OK) == 0
            && (access("/usr/sbin/runc", X_OK) == 0 || access("/usr/bin/runc", X_OK) == 0)
    }

    /// A shim in a bundle of its own, and what it told of events.
    private final class Shim: Sendable {
        let id: String
        let directory: TemporaryDirectory
        let topics = Mutex<[String]>([])
        /// The shim ends when nobody can read its log.
        let log = Mutex<SharedDescriptor?>(nil)

        init() throws {
            directory = try TemporaryDirectory()
            id = "martlet-rpc-\(getpid())-\(directory.path.suffix(6))"
        }

        /// The bundle: busybox in a root file system, and a program that ends with `code`.
        func makeBundle(code: Int) throws {
            for name in ["bundle", "bundle/rootfs", "bundle/rootfs/bin", "bundle/rootfs/proc"] {
                try check("mkdir", name, mkdir("\(directory.path)/\(name)", 0o755))
            }
            let copied = try start("/bin/cp", ["/bin/busybox", "\(directory.path)/bundle/rootfs/bin/busybox"])
            #expect(copied.waitForEnd(timeout: .seconds(30)) == .exited(0))
            let config = """
                {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "hostname": "shim",
                 "process": {"cwd": "/", "user": {"uid": 0, "gid": 0},
                             "args": ["/bin/busybox", "sh", "-c", "exit \(code)"], "env": ["PATH=/bin"]},
                 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
                 "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]}}
                """
            try write(config, to: "\(directory.path)/bundle/config.json")
        }

        /// Starts the shim as containerd does and answers the path of its socket.
        func launch() async throws -> String {
            let bundle = "\(directory.path)/bundle"
            try check("mkfifo", "log", mkfifo("\(bundle)/log", 0o600))
            let log = SharedDescriptor(try OwnedDescriptor.open("\(bundle)/log", O_RDWR | O_NONBLOCK))
            self.log.withLock { $0 = log }
            let (output, input) = try SharedDescriptor.pipe()
            let starting = try start(
                "/bin/sh",
                [
                    "-c", "cd \"$0\" && exec \"$@\"", bundle, ShimTests.shimProgram, "-namespace", "martlet-test",
                    "-id", id, "-address", "\(directory.path)/none", "-publish-binary", "/bin/true", "start",
                ],
                environment: ["TTRPC_ADDRESS=\(directory.path)/events"], output: input.raw)
            #expect(await starting.end() == .exited(0))
            var answer = [UInt8](repeating: 0, count: 4096)
            let count = try check("read", "the shim's address", read(output.raw, &answer, answer.count))
            let address = String(decoding: answer[..<count], as: UTF8.self)
            #expect(address.hasPrefix("unix://"))
            return String(address.dropFirst("unix://".count))
        }

        /// Ends what is left of it.
        func remove() {
            for pid in (try? names(in: "/proc").compactMap(pid_t.init)) ?? [] where pid != getpid() {
                let command = (try? contents(of: "/proc/\(pid)/cmdline")).map { String(decoding: $0, as: UTF8.self) }
                if command?.contains(id) == true { kill(pid, SIGKILL) }
            }
            directory.remove()
        }

        var events: TTRPCServiceDescription {
            TTRPCServiceDescription(
                "containerd.services.events.ttrpc.v1.Events",
                methods: [
                    "Forward": .unary { [self] (request: ProbeForwardRequest, _) in
                        topics.withLock { $0.append(request.envelope.topic) }
                        return Google_Protobuf_Empty()
                    }
                ])
        }
    }

    @Test(.enabled(if: runnable, "needs root, containerd-shim-runc-v2, runc and busybox"))
    func aContainerLivesAndDies() async throws {
        let shim = try Shim()
        defer { shim.remove() }
        try shim.makeBundle(code: 7)
        let server = TTRPCServer([shim.events])
        try await server.serve(unixPath: "\(shim.directory.path)/events")
        let socket = try await shim.launch()
        let lost = Atomic(false)
        let task = TaskServiceClient(
            try await TTRPCClient(unixPath: socket) { _ in lost.store(true, ordering: .relaxed) })

        var connect = TaskConnectRequest()
        connect.id = shim.id
        let connected = try await task.connect(connect)
        #expect(connected.taskPid == 0)
        #expect(try contents(of: "/proc/\(connected.shimPid)/comm").starts(with: Array("containerd-shim".utf8)))

        try await refusals(task, shim.id)
        try await lifeOfAContainer(task, shim)

        var shutdown = TaskShutdownRequest()
        shutdown.id = shim.id
        // The shim may be gone before its answer is.
        let error = await failure { () throws(TTRPCError) in try await task.shutdown(shutdown) }
        #expect(error == nil || error?.code == .unavailable)
        #expect(try await eventually { lost.load(ordering: .relaxed) })
        #expect(
            try await eventually {
                // An orphan, which another test may have made this process's child.
                waitpid(pid_t(connected.shimPid), nil, WNOHANG)
                return kill(pid_t(connected.shimPid), 0) != 0
            })
        let topics = shim.topics.withLock { $0 }
        let expected = ["create", "start", "exit", "delete"].map { "/tasks/\($0)" }
        #expect(expected.allSatisfy(topics.contains), "\(topics)")
        await server.stop()
    }

    private func refusals(_ task: TaskServiceClient, _ id: String) async throws {
        var state = TaskStateRequest()
        state.id = id
        let missing = await failure { () throws(TTRPCError) in try await task.state(state) }
        #expect(missing?.code == .notFound, "\(String(describing: missing))")
        let unknown = await failure { () throws(TTRPCError) -> Google_Protobuf_Empty in
            try await task.client.call("containerd.task.v2.Task", "Fly", state)
        }
        #expect(unknown?.code == .unimplemented)
        var create = TaskCreateTaskRequest()
        create.id = id
        create.bundle = "/nonexistent"
        let refused = await failure { () throws(TTRPCError) in try await task.create(create) }
        #expect(refused?.code == .notFound || refused?.code == .unknown, "\(String(describing: refused))")
    }

    private func lifeOfAContainer(_ task: TaskServiceClient, _ shim: Shim) async throws {
        var create = TaskCreateTaskRequest()
        create.id = shim.id
        create.bundle = "\(shim.directory.path)/bundle"
        let created = try await task.create(create, timeout: .seconds(30))
        #expect(created.pid > 0)
        var state = TaskStateRequest()
        state.id = shim.id
        let before = try await task.state(state)
        #expect(before.status == .created && before.pid == created.pid && before.bundle == create.bundle)

        var wait = TaskWaitRequest()
        wait.id = shim.id
        async let ended = task.wait(wait, timeout: .seconds(60))
        var begin = TaskStartRequest()
        begin.id = shim.id
        #expect(try await task.start(begin, timeout: .seconds(30)).pid == created.pid)
        #expect(try await ended.exitStatus == 7)

        var delete = TaskDeleteRequest()
        delete.id = shim.id
        let deleted = try await task.delete(delete, timeout: .seconds(30))
        #expect(deleted.exitStatus == 7 && deleted.exitedAt.seconds > 1_600_000_000)
        let gone = await failure { () throws(TTRPCError) in try await task.state(state) }
        #expect(gone?.code == .notFound)
    }
}
