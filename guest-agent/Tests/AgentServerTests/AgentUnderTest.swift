import AgentAPI
import AgentContract
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Synchronization
import TTRPC
import Testing

/// The agent as it was built, on this machine in place of a guest: in namespaces of its own, over Unix sockets.
final class AgentUnderTest: Sendable {
    let client: AgentServiceClient
    let directory: String
    private let process: ChildProcess
    private let nextStream = Mutex<UInt64>(1)

    /// Why these tests can't run here; nil when they can.
    static let obstacle: String? = {
        if geteuid() != 0 { return "needs root" }
        if access("/usr/bin/unshare", X_OK) != 0 { return "needs unshare" }
        if access(busybox, X_OK) != 0 { return "needs busybox-static" }
        if cgroups == nil { return "needs a cgroup2 hierarchy" }
        return nil
    }()

    static let busybox = "/usr/bin/busybox"
    static let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].first {
        access($0 + "/cgroup.controllers", F_OK) == 0
    }

    private init(client: AgentServiceClient, directory: String, process: ChildProcess) {
        self.client = client
        self.directory = directory
        self.process = process
    }

    static func start() async throws -> AgentUnderTest {
        var template = Array("/tmp/martlet-agent-test.XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        try makeRoot(directory + "/shares/root")
        let socket = directory + "/agent"
        let cgroup = try #require(cgroups) + "/martlet-test-\(getpid())-" + directory.suffix(6)
        let log = open(directory + "/log", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(log) }
        let command = ChildProcess.Command(
            executable: "/usr/bin/unshare",
            arguments: [
                // Its own pid namespace ends all of it with its first process, the shell.
                "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c",
                "\"$@\" & wait", "sh", try agentPath(), "--listen", "unix:\(socket)", "--shares", directory + "/shares",
                "--volumes", directory + "/volumes",
                "--cgroup", cgroup,
            ],
            environment: ["PATH=/usr/bin:/bin"], descriptors: [-1, log, log], diesWithParent: true)
        let process = try ChildProcess("agent", command)
        // The socket is there before it is listened on.
        for _ in 0..<3000 where !isReady(directory + "/log") { usleep(10_000) }
        let client = AgentServiceClient(try await TTRPCClient(unixPath: socket))
        let agent = AgentUnderTest(client: client, directory: directory, process: process)
        try await agent.createSandbox("pod")
        return agent
    }

    /// - Parameter version: of the agent API, that the host is to speak.
    func createSandbox(_ id: String, version: UInt32 = AgentProtocol.version) async throws {
        let reply = try await client.createSandbox(
            .with {
                $0.sandboxID = id
                $0.protocolVersion = version
            })
        #expect(reply.protocolVersion == AgentProtocol.version && reply.martletVersion == martletVersion)
    }

    /// Runs `body` with an agent of its own.
    static func play(_ body: (AgentUnderTest) async throws -> Void) async throws {
        let agent = try await start()
        do {
            try await body(agent)
        } catch {
            await agent.stop()
            throw error
        }
        await agent.stop()
    }

    private static func isReady(_ log: String) -> Bool {
        guard let file = fopen(log, "r") else { return false }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            if strcmp(line, AgentConsole.readyLine + "\n") == 0 { return true }
        }
        return false
    }

    /// Ends the agent and takes its files away.
    func stop() async {
        _ = try? await client.destroySandbox(AgentEmpty())
        client.client.close()
        if process.waitForEnd(timeout: .seconds(10)) == nil {
            Issue.record("the agent did not end when it was told to")
            process.signal(SIGKILL)
        }
        if let group = Self.cgroups { rmdir(group + "/martlet-test-\(getpid())-" + directory.suffix(6)) }
        let remove = try? ChildProcess(
            "rm", .init(executable: "/bin/rm", arguments: ["-rf", directory], descriptors: [-1, 2, 2]))
        _ = remove?.waitForEnd(timeout: .seconds(60))
    }

    /// A path of the agent's, by which this process reaches the same: the agent has mounts of its own.
    func seen(_ path: String) throws -> String {
        for pid in try directoryNames("/proc") where Int(pid) != nil {
            guard let words = try? readText("/proc/\(pid)/cmdline").split(separator: "\0"),
                words.first?.hasSuffix("/martlet-agent") == true, words.contains("unix:\(directory)/agent")
            else { continue }
            return "/proc/\(pid)/root\(path)"
        }
        throw SystemError("find the agent", directory, errno: .noSuchProcess)
    }

    private static func agentPath() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        let own = String(decoding: buffer.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = own.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/martlet-agent"
        if access(path, X_OK) == 0 { return path }
        // `swift test` runs a helper of the tool chain's; the tests' own arguments name the bundle.
        for argument in CommandLine.arguments where argument.contains(".xctest") {
            let candidate = argument.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/martlet-agent"
            if access(candidate, X_OK) == 0 { return candidate }
        }
        throw SystemError("find", path, errno: .noSuchFileOrDirectory)
    }

    private static func makeRoot(_ path: String) throws {
        let script = """
            mkdir -p $1/bin $1/etc $1/proc $1/dev $1/sys $1/tmp $1/run && cp \(busybox) $1/bin/busybox &&
            for name in $(\(busybox) --list); do [ -e $1/bin/$name ] || ln -s busybox $1/bin/$name; done
            echo 'root:x:0:0::/root:/bin/sh' > $1/etc/passwd; echo 'www:x:33:34::/var/www:/bin/sh' >> $1/etc/passwd
            echo 'extra:x:77:www' > $1/etc/group
            """
        let process = try ChildProcess(
            "sh",
            .init(
                executable: "/bin/sh", arguments: ["-ec", script, "sh", path], environment: ["PATH=/usr/bin:/bin"],
                descriptors: [-1, 2, 2]))
        try #require(process.waitForEnd(timeout: .seconds(60))?.status == 0)
    }

    /// A specification as `martlet spec` writes it, for the busybox root.
    func spec(_ arguments: [String], id: String, _ change: (inout Spec) -> Void = { _ in }) -> Spec {
        let all = Capabilities.names
        var spec = Spec(
            process: Process(
                args: arguments, env: ["PATH=/bin"],
                capabilities: Capabilities(bounding: all, effective: all, permitted: all)),
            root: Root(path: "/run/martlet/\(id)/rootfs"), hostname: "box",
            mounts: [
                Mount(destination: "/proc", type: "proc", source: "proc"),
                Mount(
                    destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=65536k"]),
                Mount(
                    destination: "/dev/pts", type: "devpts", source: "devpts",
                    options: ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                Mount(
                    destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"]),
            ],
            linux: Linux(
                namespaces: [.init(.mount), .init(.pid), .init(.uts), .init(.ipc), .init(.network)],
                maskedPaths: ["/proc/kcore", "/sys/firmware"], readonlyPaths: ["/proc/sys"]))
        // This machine may lack one that its root could give.
        let held = heldCapabilities()
        spec.process?.capabilities = Capabilities(bounding: held, effective: held, permitted: held)
        change(&spec)
        return spec
    }

    private func heldCapabilities() -> [String] {
        guard let file = fopen("/proc/self/status", "r") else { return [] }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 512)
        while fgets(&line, 512, file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard text.hasPrefix("CapPrm:\t"), let mask = UInt64(text.dropFirst(8).prefix(16), radix: 16) else {
                continue
            }
            return Capabilities.names.enumerated().filter { mask & 1 << UInt64($0.offset) != 0 }.map(\.element)
        }
        return []
    }

    func create(
        _ id: String, _ spec: Spec, _ streams: AgentStreams = AgentStreams(), storages: [AgentStorage] = [],
        sockets: [AgentSocket] = []
    ) async throws {
        let json = try JSON.encode(spec)
        _ = try await client.createContainer(
            .with {
                $0.containerID = id
                $0.specJson = Data(json)
                $0.storages =
                    [
                        .with {
                            $0.driver = "share"
                            $0.source = "root"
                            $0.mountPoint = "/run/martlet/\(id)/rootfs"
                        }
                    ] + storages
                $0.streams = streams
                $0.sockets = sockets
            })
    }

    func start(_ id: String) async throws { _ = try await client.startContainer(.with { $0.containerID = id }) }

    func wait(_ id: String, exec: String = "") async throws -> UInt32 {
        try await client.waitProcess(
            .with {
                $0.containerID = id
                $0.execID = exec
            }, timeout: .seconds(60)
        ).exitStatus
    }

    func remove(_ id: String) async throws { _ = try await client.removeContainer(.with { $0.containerID = id }) }

    /// A connection for a stream: its number, and the host's end.
    func stream() throws -> (number: UInt64, socket: SharedDescriptor) {
        let number = nextStream.withLock { next in
            defer { next += 1 }
            return next
        }
        return (number, try stream(number))
    }

    /// A connection that begins with this number.
    func stream(_ number: UInt64) throws -> SharedDescriptor {
        let socket = SharedDescriptor(
            OwnedDescriptor(owning: try check("socket", "", socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))))
        try UnixAddress(directory + "/agent.streams").with { address, length throws(SystemError) in
            _ = try check("connect", "", connect(socket.raw, address, length))
        }
        var bytes = number.littleEndian
        #expect(write(socket.raw, &bytes, 8) == 8)
        return socket
    }

    /// Runs a container to its end: its exit status and all of its output.
    func run(
        _ arguments: [String], id: String, input: [UInt8]? = nil, _ change: (inout Spec) -> Void = { _ in }
    ) async throws -> (status: UInt32, output: String, errors: String) {
        let (out, err) = (try stream(), try stream())
        let stdin = try input.map { _ in try stream() }
        try await create(
            id, spec(arguments, id: id, change),
            .with {
                $0.stdin = stdin?.number ?? 0
                $0.stdout = out.number
                $0.stderr = err.number
            })
        async let output = Self.readAll(out.socket)
        async let errors = Self.readAll(err.socket)
        if let stdin, let input {
            try startThread("input") {
                _ = Self.writeAll(input, to: stdin.socket)
                shutdown(stdin.socket.raw, Int32(SHUT_WR))
            }
        }
        try await start(id)
        let status = try await wait(id)
        let texts = await (output, errors)
        try await remove(id)
        return (status, String(decoding: texts.0, as: UTF8.self), String(decoding: texts.1, as: UTF8.self))
    }

    /// Runs a further process in a running container to its end: its exit status and its output.
    func exec(
        _ arguments: [String], in container: String, id: String = "e",
        _ change: (inout OCISpec.Process) -> Void = { _ in }
    ) async throws -> (status: UInt32, output: String) {
        let out = try stream()
        var process = OCISpec.Process(args: arguments, env: ["PATH=/bin"])
        change(&process)
        let json = try JSON.encode(process)
        _ = try await client.execProcess(
            .with {
                $0.containerID = container
                $0.execID = id
                $0.processJson = Data(json)
                $0.streams = .with { $0.stdout = out.number }
            })
        async let output = Self.readAll(out.socket)
        let status = try await wait(container, exec: id)
        return (status, String(decoding: await output, as: UTF8.self))
    }

    /// Runs `body` with a container that sleeps.
    func withSleeper(
        _ id: String, _ change: (inout Spec) -> Void = { _ in }, _ body: () async throws -> Void
    ) async throws {
        try await create(id, spec(["sleep", "1000"], id: id, change))
        try await start(id)
        try await body()
        try await remove(id)
    }

    static func writeAll(_ bytes: [UInt8], to socket: SharedDescriptor) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(socket.raw, $0.baseAddress.map { $0 + sent }, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }

    static func readAll(_ socket: SharedDescriptor) async -> [UInt8] {
        await withCheckedContinuation { continuation in
            Thread.start { continuation.resume(returning: blockingReadAll(socket)) }
        }
    }

    static func blockingReadAll(_ socket: SharedDescriptor) -> [UInt8] {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(socket.raw, &chunk, chunk.count)
            if count <= 0 { return all }
            all += chunk[..<count]
        }
    }

    private enum Thread {
        static func start(_ body: @Sendable @escaping () -> Void) {
            do { try startThread("read", body) } catch { Issue.record(error) }
        }
    }
}
