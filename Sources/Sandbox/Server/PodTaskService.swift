import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import SwiftProtobuf
import TTRPC
import TaskAPI

/// containerd's Task service for one pod: wire types in, the pod's own out. Methods that are not there yet refuse by
/// name.
actor PodTaskService: TaskService {
    private enum Phase {
        case empty
        case starting
        case running(Pod)
        case gone
    }

    private let id: String
    private let directory: StateDirectory
    private let configuration: Configuration
    private let logger: Logger
    private var phase = Phase.empty
    /// Set as soon as there are processes to end.
    private var machine: (any VirtualMachine)?
    private var network: PodNetworking?
    /// Settled when the server has nothing more to do.
    let finished: Promise<Void>

    init(id: String, directory: StateDirectory, configuration: Configuration, logger: Logger) throws {
        self.id = id
        self.directory = directory
        self.configuration = configuration
        self.logger = logger
        finished = try Promise()
    }

    func create(_ request: TaskCreateTaskRequest, context: TTRPCContext) async throws -> TaskCreateTaskResponse {
        try await answering {
            guard request.checkpoint.isEmpty else { throw SandboxError.unsupported("restore from a checkpoint") }
            guard request.rootfs.isEmpty else { throw SandboxError.unsupported("rootfs mounts in the create request") }
            guard case .empty = phase else { throw SandboxError.unsupported("a second container in a pod") }
            phase = .starting
            do {
                let plan = try SandboxPlan(
                    id: request.id, bundle: try Bundle(directory: request.bundle), configuration: configuration)
                logger.debug("driver: \(plan.driver)")
                for warning in plan.warnings { logger.warning("\(warning)") }
                let pod = try await launch(plan, bundle: request.bundle)
                phase = .running(pod)
                do {
                    try await pod.create(
                        plan.container, bundle: request.bundle, stdio: (request.stdin, request.stdout, request.stderr))
                    try await network?.attach(to: pod)
                } catch {
                    let told = await pod.explain(error)
                    await pod.shutdown()
                    throw told
                }
            } catch {
                phase = .gone
                throw error
            }
            return .with { $0.pid = taskPID }
        }
    }

    /// What engines take for the pid of a container's first process, which lives in the guest.
    private var taskPID: UInt32 { UInt32(bitPattern: network?.pid ?? getpid()) }

    private func launch(_ plan: SandboxPlan, bundle: String) async throws -> Pod {
        let driver = try plan.makeDriver(logger: logger)
        let network = try PodNetworking(plan.network, logger: logger)
        self.network = network
        let machine = try driver.launch(plan.machine)
        self.machine = machine
        do {
            var state = StateDirectory.State(id: id, bundle: bundle)
            state.processes = ([("server", getpid()), ("network holder", network.pid)] + machine.processes).compactMap {
                .init(name: $0.0, pid: $0.1)
            }
            try directory.write(state)
            for share in plan.container.shares {
                let tree = try detachedTree(share.source)
                if share.mountPoint == plan.container.spec.root?.path { plan.container.makeMountPoints(root: tree.raw) }
                try machine.addShare(name: share.name, tree: tree.raw, readOnly: share.readOnly)
            }
        } catch {
            throw await Pod.fate(of: machine, after: error)
        }
        return try await Pod.start(plan, on: machine, limits: configuration.limits, logger: logger)
    }

    func start(_ request: TaskStartRequest, context: TTRPCContext) async throws -> TaskStartResponse {
        let (network, pid) = (network, taskPID)
        return try await withPod(exec: request.execID) { pod in
            try await network?.refresh()
            try await pod.start(request.id)
            return .with { $0.pid = pid }
        }
    }

    func state(_ request: TaskStateRequest, context: TTRPCContext) async throws -> TaskStateResponse {
        let pid = taskPID
        return try await withPod(exec: request.execID) { pod in
            let container = try await pod.find(request.id)
            return .with {
                $0.id = container.id
                $0.bundle = container.bundle
                $0.pid = pid
                $0.terminal = container.terminal
                ($0.stdin, $0.stdout, $0.stderr) = container.stdio
                switch container.phase {
                case .created: $0.status = .created
                case .running: $0.status = .running
                case .stopped(let record):
                    $0.status = .stopped
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    func wait(_ request: TaskWaitRequest, context: TTRPCContext) async throws -> TaskWaitResponse {
        try await withPod(exec: request.execID) { pod in
            let record = await (try pod.find(request.id)).exit.value()
            return .with {
                $0.exitStatus = record.status
                $0.exitedAt = timestamp(record.at)
            }
        }
    }

    func delete(_ request: TaskDeleteRequest, context: TTRPCContext) async throws -> TaskDeleteResponse {
        let pid = taskPID
        return try await withPod(exec: request.execID) { pod in
            let container = try await pod.remove(request.id)
            return .with {
                $0.pid = pid
                if case .stopped(let record) = container.phase {
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    func kill(_ request: TaskKillRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod(exec: request.execID) { pod in
            try await pod.signal(request.id, request.signal, all: request.all)
            return .init()
        }
    }

    func resizePty(_ request: TaskResizePtyRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod(exec: request.execID) { pod in
            try await pod.resize(request.id, width: request.width, height: request.height)
            return .init()
        }
    }

    /// The terminal of the pod's first container has another size now.
    func resizeTerminal(width: UInt32, height: UInt32) async {
        guard case .running(let pod) = phase else { return }
        do { try await pod.resize(id, width: width, height: height) } catch { logger.debug("resize: \(error)") }
    }

    func closeIO(_ request: TaskCloseIORequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod(exec: request.execID) { pod in
            if request.stdin { try await pod.closeInput(request.id) }
            return .init()
        }
    }

    func pids(_ request: TaskPidsRequest, context: TTRPCContext) async throws -> TaskPidsResponse {
        try await withPod(exec: "") { pod in
            let pids = try await pod.processes(request.id)
            return .with { $0.processes = pids.map { pid in .with { $0.pid = pid } } }
        }
    }

    func connect(_ request: TaskConnectRequest, context: TTRPCContext) async throws -> TaskConnectResponse {
        .with {
            $0.shimPid = UInt32(bitPattern: getpid())
            $0.taskPid = taskPID
            $0.version = martletVersion
        }
    }

    func shutdown(_ request: TaskShutdownRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        await end()
        return .init()
    }

    /// Ends the pod, whatever it is doing, and lets the server go.
    func end() async {
        if case .running(let pod) = phase {
            phase = .gone
            await pod.shutdown()
        } else if let machine {
            machine.kill(.ended("the pod was shut down"))
            _ = await machine.end()
        }
        await network?.end()
        finished.settle(())
    }

    func exec(_ request: TaskExecProcessRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw missing("exec")
    }
    func pause(_ request: TaskPauseRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw missing("pause")
    }
    func resume(_ request: TaskResumeRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw missing("resume")
    }
    func checkpoint(_ request: TaskCheckpointTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw missing("checkpoint")
    }
    func update(_ request: TaskUpdateTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw missing("update")
    }
    func stats(_ request: TaskStatsRequest, context: TTRPCContext) async throws -> TaskStatsResponse {
        throw missing("stats")
    }

    private func missing(_ method: String) -> TTRPCError {
        TTRPCError(.unimplemented, SandboxError.unsupported(method).description)
    }

    private func withPod<R: Sendable>(exec: String, _ body: @Sendable (Pod) async throws -> R) async throws -> R {
        try await answering {
            guard exec.isEmpty else { throw SandboxError.unsupported("exec") }
            guard case .running(let pod) = phase else { throw SandboxError.notFound("container \(id)") }
            do { return try await body(pod) } catch { throw await pod.explain(error) }
        }
    }

    /// The one place where the sandbox's errors become gRPC codes.
    private func answering<R: Sendable>(_ body: () async throws -> R) async throws -> R {
        do {
            return try await body()
        } catch let error as TTRPCError {
            throw error
        } catch let error as SandboxError {
            let code: TTRPCError.Code =
                switch error {
                case .alreadyExists: .alreadyExists
                case .notFound: .notFound
                case .wrongState: .failedPrecondition
                case .invalid: .invalidArgument
                case .unsupported: .unimplemented
                case .failed: .internal
                case .machineEnded: .aborted
                }
            throw TTRPCError(code, error.description)
        } catch let error as SpecError {
            throw TTRPCError(.invalidArgument, error.description)
        } catch {
            throw TTRPCError(.internal, "\(error)")
        }
    }
}

private func timestamp(_ nanoseconds: Int64) -> Google_Protobuf_Timestamp {
    .with {
        $0.seconds = nanoseconds / 1_000_000_000
        $0.nanos = Int32(nanoseconds % 1_000_000_000)
    }
}
