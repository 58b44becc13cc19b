import Glibc
import LinuxSystem
import OCISpec
internal import SwiftProtobuf
import TTRPC
internal import TaskAPI

/// A process of a container whose streams are fifos in the test's hands: its first one, or an exec.
struct ShimProcess {
    let pod: ShimPod
    let container: String
    /// Empty: the container's first one.
    let exec: String
    let fifos: ShimFifos

    var output: Collector { fifos.output }

    func start() throws {
        let (container, exec) = (container, exec)
        _ = try pod.ask {
            try await $0.start(.with { ($0.id, $0.execID) = (container, exec) }, timeout: ShimPod.timeout)
        }
    }

    /// Waits for its end.
    ///
    /// - Returns: its exit code.
    func end(within limit: Duration = .seconds(120)) throws -> UInt32 {
        let (container, exec) = (container, exec)
        return try pod.ask {
            let request = TaskWaitRequest.with { ($0.id, $0.execID) = (container, exec) }
            return try await $0.wait(request, timeout: limit * Lab.patience).exitStatus
        }
    }

    /// - Returns: its exit code.
    @discardableResult
    func delete() throws -> UInt32 {
        let (container, exec) = (container, exec)
        return try pod.ask {
            let request = TaskDeleteRequest.with { ($0.id, $0.execID) = (container, exec) }
            return try await $0.delete(request, timeout: ShimPod.timeout).exitStatus
        }
    }

    /// The code with which a signal is refused; nil where it is sent.
    @discardableResult
    func signal(_ number: Int32, all: Bool = false) throws -> TTRPCError.Code? {
        let (container, exec) = (container, exec)
        let request = TaskKillRequest.with {
            ($0.id, $0.execID, $0.signal, $0.all) = (container, exec, UInt32(number), all)
        }
        return try pod.refusal { try await $0.kill(request, timeout: ShimPod.timeout) }?.code
    }

    /// Ends its input, behind what has been written.
    func closeInput() throws {
        let (container, exec) = (container, exec)
        let request = TaskCloseIORequest.with { ($0.id, $0.execID, $0.stdin) = (container, exec, true) }
        _ = try pod.ask { try await $0.closeIO(request, timeout: ShimPod.timeout) }
    }

    /// Waits for its end, deletes it at once, and reads its output to its end, as containerd's clients do.
    func finish(within limit: Duration = .seconds(120)) throws -> (code: UInt32, output: [UInt8]) {
        let code = try end(within: limit)
        guard try delete() == code else {
            throw LabError("\(container) \(exec): Delete says another exit code than Wait")
        }
        return (code, try output.whole(within: .seconds(30) * Lab.patience))
    }

    /// The same; its output as text.
    func result(within limit: Duration = .seconds(120)) throws -> ShimResult {
        let (code, output) = try finish(within: limit)
        return ShimResult(code: code, text: String(decoding: output, as: UTF8.self))
    }
}

/// How a process ended, and what it wrote.
struct ShimResult: Equatable {
    var code: UInt32
    var text: String
}

extension ShimPod {
    /// Creates a container whose streams are fifos.
    func createProcess(
        _ container: String, bundle: String, _ rootfs: [RootMount], hasInput: Bool = false
    ) throws -> ShimProcess {
        let fifos = try ShimFifos(in: "\(bundle)/streams", hasInput: hasInput)
        try create(container, bundle: bundle, rootfs, streams: .fifos(fifos))
        return ShimProcess(pod: self, container: container, exec: "", fifos: fifos)
    }

    /// Adds a further process to a container.
    ///
    /// - Parameter streams: nil: none.
    /// - Returns: its id.
    func add(_ args: [String], in container: String, streams: ShimStreams) throws -> String {
        let id = "exec-\(scene.newID())"
        let program = Process(args: args, env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
        let spec = try Google_Protobuf_Any.with {
            $0.typeURL = "types.containerd.io/opencontainers/runtime-spec/1/Process"
            $0.value = try JSON.encode(program).withUnsafeBytes { .init($0) }
        }
        let request = TaskExecProcessRequest.with {
            ($0.id, $0.execID, $0.spec) = (container, id, spec)
            ($0.stdin, $0.stdout, $0.stderr) = streams.names
        }
        _ = try ask { try await $0.exec(request, timeout: Self.timeout) }
        return id
    }

    /// Adds a further process to a container, with fifos.
    func process(_ args: [String], in container: String, hasInput: Bool = false) throws -> ShimProcess {
        let fifos = try ShimFifos(in: "\(scene.directory)/streams-\(scene.newID())", hasInput: hasInput)
        let id = try add(args, in: container, streams: .fifos(fifos))
        return ShimProcess(pod: self, container: container, exec: id, fifos: fifos)
    }

    /// Starts a further process.
    func exec(_ args: [String], in container: String, hasInput: Bool = false) throws -> ShimProcess {
        let process = try process(args, in: container, hasInput: hasInput)
        try process.start()
        return process
    }

    /// Runs a shell's script in a container to its end.
    func shell(_ script: String, in container: String) throws -> ShimResult {
        try exec(["/bin/sh", "-c", script], in: container).result()
    }

    /// The state of a task.
    func state(of container: String) throws -> TaskStateResponse {
        try ask { try await $0.state(.with { $0.id = container }, timeout: Self.timeout) }
    }
}
