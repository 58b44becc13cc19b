import FoundationEssentials
import Glibc
import LinuxSystem
import Testing

/// A pod under test.
final class CRIPod {
    let cri: CRI
    let id: String
    let config: JSONValue
    private let version: String

    init(_ cri: CRI, id: String, config: JSONValue, version: String = "v1") {
        (self.cri, self.id, self.config, self.version) = (cri, id, config, version)
    }

    var status: JSONValue {
        get throws { try call("PodSandboxStatus", ["pod_sandbox_id": "\(id)"])["status"] }
    }

    var isReady: Bool { get throws { try status["state"].text == "SANDBOX_READY" } }

    var address: String { get throws { try status["network"]["ip"].text } }

    func call(_ method: String, _ message: JSONValue, within limit: Int = 60) throws -> JSONValue {
        try cri.client.call(method, message, version: version, within: limit)
    }

    /// Makes a container, without starting it.
    func create(
        _ name: String, _ command: [String], image: String = Containerd.image,
        edit: (inout JSONValue) -> Void = { _ in }
    ) throws -> CRIContainer {
        var container: JSONValue = [
            "metadata": ["name": "\(name)"], "image": ["image": "\(image)", "user_specified_image": "\(image)"],
            "command": .list(command.map { .string($0) }), "log_path": "\(name).log",
            "linux": ["security_context": ["namespace_options": .object(namespaces)]],
        ]
        edit(&container)
        let reply = try call(
            "CreateContainer", ["pod_sandbox_id": "\(id)", "config": container, "sandbox_config": config])
        return CRIContainer(
            self, id: reply["container_id"].text, log: "\(config["log_directory"].text)/\(container["log_path"].text)")
    }

    /// A kubelet gives each container the options of its pod.
    private var namespaces: [String: JSONValue] {
        let options = config["linux"]["security_context"]["namespace_options"]
        return if case .object(let fields) = options { fields } else { [:] }
    }

    /// Runs a shell's script in a new container.
    func start(
        _ name: String, _ script: String = "trap 'exit 0' TERM; while :; do sleep 0.2; done",
        edit: (inout JSONValue) -> Void = { _ in }
    ) throws -> CRIContainer {
        let container = try create(name, ["/bin/sh", "-c", script], edit: edit)
        try container.start()
        return container
    }

    func stop() throws {
        if CRIO.isWanted { try cri.stopContainers(of: id) }
        _ = try call("StopPodSandbox", ["pod_sandbox_id": "\(id)"])
    }

    /// Stops and removes it, as a kubelet does, its containers with it.
    func remove() throws {
        try stop()
        _ = try call("RemovePodSandbox", ["pod_sandbox_id": "\(id)"])
    }

    /// Waits until it is ready or not.
    func wait(ready: Bool, within limit: Duration = .seconds(15)) throws {
        try waiting(within: limit, for: "pod \(id) ready: \(ready)") { try isReady == ready }
    }
}

/// A container under test.
final class CRIContainer {
    let pod: CRIPod
    let id: String
    /// The file that its output goes to.
    let log: String

    init(_ pod: CRIPod, id: String, log: String) { (self.pod, self.id, self.log) = (pod, id, log) }

    /// What ExecSync answers.
    struct Result: Equatable {
        var code: Int
        var output: String
        var errors: String
    }

    func start() throws { _ = try pod.call("StartContainer", ["container_id": "\(id)"]) }

    func stop(timeout: Int = 2) throws {
        _ = try pod.call("StopContainer", ["container_id": "\(id)", "timeout": .number(Double(timeout))])
    }

    func remove() throws { _ = try pod.call("RemoveContainer", ["container_id": "\(id)"]) }

    var status: JSONValue { get throws { try pod.call("ContainerStatus", ["container_id": "\(id)"])["status"] } }

    /// `CONTAINER_RUNNING` and so on.
    var state: String { get throws { try status["state"].text } }

    /// - Parameter timeout: seconds; 0: none.
    func execute(_ command: [String], timeout: Int = 0) throws -> Result {
        let reply = try pod.call(
            "ExecSync",
            [
                "container_id": "\(id)", "cmd": .list(command.map { .string($0) }),
                "timeout": .number(Double(timeout)),
            ])
        return Result(
            code: reply["exit_code"].int ?? 0, output: reply["stdout"].decoded, errors: reply["stderr"].decoded)
    }

    /// What a shell's script writes; it must end well.
    @discardableResult
    func shell(_ script: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let result = try execute(["/bin/sh", "-c", script])
        #expect(result.code == 0, "\(script): \(result.errors)", sourceLocation: sourceLocation)
        return result.output
    }

    /// Exec, Attach: a stream of the address that `method` answers, under way.
    func stream(
        _ method: String, _ command: [String] = [], tty: Bool = false, size: String? = nil, stdin: Bool = true,
        input: Command.Stream = .pipe
    ) throws -> Command {
        var message: JSONValue = [
            "container_id": "\(id)", "tty": .bool(tty), "stdin": .bool(stdin), "stdout": true, "stderr": .bool(!tty),
        ]
        if method == "Exec" { message["cmd"] = .list(command.map { .string($0) }) }
        let url = try pod.call(method, message)["url"].text
        return try pod.cri.start(
            [CRIClient.program, "stream", url] + (size.map { [$0] } ?? []), input: stdin ? input : .null)
    }

    /// Waits until its state is this one; answers its status.
    @discardableResult
    func wait(for state: String = "CONTAINER_EXITED", within limit: Duration = .seconds(30)) throws -> JSONValue {
        try waiting(within: limit, for: "container \(id): \(state)") { try self.state == state }
        return try status
    }

    /// Its log: a line's stream, its tag (F: whole) and its text, the time left out.
    var logLines: [String] {
        (Leftovers.read(log) ?? "").split(separator: "\n").map { line in
            line.split(separator: " ", maxSplits: 1).dropFirst().joined()
        }
    }

    /// Waits until its log has this line.
    func wait(forLog line: String) throws {
        try waiting(within: .seconds(30), for: "log line \(line) in \(log)") { logLines.contains(line) }
    }
}

/// Looks again and again until `condition` holds.
func waiting(within limit: Duration, for what: String, _ condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + limit * Lab.patience
    while try !condition() {
        guard ContinuousClock.now < end else { throw LabError("waited in vain for \(what)") }
        usleep(100_000)
    }
}

extension JSONValue {
    /// Bytes, which protobuf's JSON has in base 64, as text.
    var decoded: String { String(decoding: Data(base64Encoded: text) ?? Data(), as: UTF8.self) }
}
