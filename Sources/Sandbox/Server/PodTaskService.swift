import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import OCISpec
import PodNetwork
import SwiftProtobuf
import TTRPC
import TaskAPI

/// containerd's Task service for one pod: wire types in, the pod's own out.
actor PodTaskService: TaskService {
    enum Phase {
        case empty
        case starting
        case running(Pod)
        case gone
    }

    let surroundings: PodSurroundings
    /// The pod's own, as the engine's options and the bundle's annotations have made it.
    private(set) var configuration: Configuration
    var phase = Phase.empty
    /// Set as soon as there are processes to end.
    var machine: (any VirtualMachine)?
    var network: PodNetworking?
    /// The machine's memory.
    private var memoryMiB = 0
    /// Those of the plan.
    private var namespaces: [String] = []
    private var cgroup: HostCgroup?
    /// Whether the engine knows of the pod and ends it itself: its containers come and go.
    var isSandbox = false
    /// Settled when the server has nothing more to do.
    let finished: Promise<Void>

    var logger: Logger { surroundings.logger }

    init(_ surroundings: PodSurroundings) throws {
        self.surroundings = surroundings
        configuration = surroundings.configuration
        finished = try Promise()
    }

    // MARK: Life

    func create(_ request: TaskCreateTaskRequest, context: TTRPCContext) async throws -> TaskCreateTaskResponse {
        try await answering {
            guard request.checkpoint.isEmpty else { throw SandboxError.unsupported("restore from a checkpoint") }
            let bundle = try Bundle(directory: request.bundle)
            let configuration = try surroundings.configuration(
                options: request.options, annotations: bundle.spec.annotations)
            let root = try await RootMounts(request.rootfs, bundle: bundle).tree()
            let names = StreamNames(stdin: request.stdin, stdout: request.stdout, stderr: request.stderr)
            switch phase {
            case .running(let pod):
                let (plan, warnings) = try SandboxPlan.Container.planned(
                    id: request.id, bundle: bundle, configuration,
                    shared: namespaces + Linux.podNamespaces(ofProcess: pod.pid))
                for warning in warnings { logger.warning("\(warning)") }
                try checkMemory(plan.spec.linux?.resources, configuration.spec)
                guard plan.volumes.isEmpty else {
                    throw SandboxError.unsupported("a disk for a container that joins a running pod")
                }
                do {
                    try await pod.create(plan, bundle: request.bundle, names: names, root: root)
                } catch { throw await pod.explain(error) }
            case .empty:
                try await createPod(request, bundle, configuration, names, root)
            case .starting: throw SandboxError.wrongState("the pod is being started")
            case .gone: throw SandboxError.wrongState("the pod has ended")
            }
            return .with { $0.pid = taskPID }
        }
    }

    /// What engines take for the pid of a container's first process, which lives in the guest.
    var taskPID: UInt32 { UInt32(bitPattern: network?.pid ?? getpid()) }

    /// The first container: with it the pod is made, and with its failure the pod goes.
    private func createPod(
        _ request: TaskCreateTaskRequest, _ bundle: Bundle, _ configuration: Configuration, _ names: StreamNames,
        _ root: SharedDescriptor?
    ) async throws {
        let plan = try SandboxPlan(id: request.id, bundle: bundle, configuration: configuration)
        try await make(plan, configuration, bundle: request.bundle) { pod in
            guard let container = plan.container else { return }
            try await pod.create(container, bundle: request.bundle, names: names, root: root)
        }
    }

    /// Makes the pod; what `fill` throws ends it again.
    func make(
        _ plan: SandboxPlan, _ configuration: Configuration, bundle: String, fill: (Pod) async throws -> Void
    ) async throws {
        phase = .starting
        self.configuration = configuration
        do {
            logger.debug("driver: \(plan.driver)")
            for warning in plan.warnings { logger.warning("\(warning)") }
            let pod = try await launch(plan, configuration, bundle: bundle)
            phase = .running(pod)
            do {
                try await fill(pod)
                try await network?.attach(to: pod)
            } catch {
                let told = await pod.explain(error)
                await pod.shutdown()
                throw told
            }
        } catch {
            phase = .gone
            await release()
            endUnlessUsed()
            throw error
        }
    }

    /// A limit above what the machine has can't be reached: refused, or only said, as the configuration wants it.
    func checkMemory(_ resources: Linux.Resources?, _ policy: Unsupported.Policy) throws {
        guard let limit = resources?.memory?.limit, limit > Int64(memoryMiB) << 20 else { return }
        let words =
            "linux.resources.memory.limit: \(limit >> 20) MiB are more than the \(memoryMiB) MiB of the pod's machine"
        if policy.ineffectiveLimits == .refuse { throw SandboxError.invalid(words) }
        logger.warning("\(words)")
    }

    private func launch(_ plan: SandboxPlan, _ configuration: Configuration, bundle: String) async throws -> Pod {
        let driver = try plan.makeDriver(logger: logger)
        if let path = plan.cgroup {
            // Written down before they are made: whoever clears up after a crash knows of them.
            try surroundings.record([], bundle: bundle, cgroups: HostCgroup.directories(at: path))
            // Before anything is started that belongs into it.
            cgroup = try HostCgroup(joining: path)
        }
        let network = try PodNetworking(plan.network, vcpus: plan.machine.vcpus, logger: logger)
        self.network = network
        let machine = try driver.launch(plan.machine)
        self.machine = machine
        network.bind(machine)
        memoryMiB = plan.machine.memoryMiB
        namespaces = plan.namespaces
        do {
            try surroundings.record(
                [(PauseProcess.name, network.pid)] + machine.processes, bundle: bundle,
                cgroups: cgroup?.directories ?? [], network: plan.network)
        } catch {
            throw await Pod.fate(of: machine, after: error)
        }
        return try await Pod.start(
            plan, on: machine,
            context: Pod.Context(
                limits: configuration.limits, copyLimit: configuration.volumes.copyLimit, logger: logger, pid: taskPID,
                namespace: surroundings.namespace, tell: surroundings.tell))
    }

    func start(_ request: TaskStartRequest, context: TTRPCContext) async throws -> TaskStartResponse {
        let network = network
        return try await withPod { pod in
            // Engines add interfaces between a container's creation and its start.
            if request.execID.isEmpty { try await network?.refresh() }
            try await pod.start(request.id, exec: request.execID)
            return .with { $0.pid = pod.pid }
        }
    }

    func exec(_ request: TaskExecProcessRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        let policy = configuration.spec
        return try await withPod { pod in
            var program = try JSON.decode(Process.self, from: Array(request.spec.value), file: "process")
            try Unsupported.refuse(program.unsupported(policy: policy))
            program.terminal = request.terminal
            try await pod.addExec(
                request.id, exec: request.execID, program,
                names: StreamNames(stdin: request.stdin, stdout: request.stdout, stderr: request.stderr))
            return .init()
        }
    }

    func wait(_ request: TaskWaitRequest, context: TTRPCContext) async throws -> TaskWaitResponse {
        try await withPod { pod in
            let record = await (try pod.find(request.id, request.execID)).exit.value()
            return .with {
                $0.exitStatus = record.status
                $0.exitedAt = timestamp(record.at)
            }
        }
    }

    func delete(_ request: TaskDeleteRequest, context: TTRPCContext) async throws -> TaskDeleteResponse {
        try await withPod { pod in
            let process =
                try await request.execID.isEmpty
                ? pod.remove(request.id) : pod.removeExec(request.id, exec: request.execID)
            return .with {
                $0.pid = pod.pid
                if case .stopped(let record) = process.phase {
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    /// Ends the pod when it has no container any more: an engine asks for each container that it deletes.
    func shutdown(_ request: TaskShutdownRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        if isSandbox { return .init() }
        if case .running(let pod) = phase, await !pod.containers.isEmpty { return .init() }
        await end()
        return .init()
    }

    /// Ends the server if it has no pod when as much time has passed as one may take to start: an engine that died before it
    /// asked for one, or before it was told of a failure, asks for nothing any more.
    func endUnlessUsed() {
        let limit = surroundings.configuration.agent.startTimeout
        Task {
            try await Task.sleep(for: limit)
            switch phase {
            case .empty, .gone: await end()
            case .starting, .running: return
            }
        }
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
        await release()
        finished.settle(())
    }

    /// Gives back what the pod has on the host beside its processes.
    func release() async {
        await network?.end()
        cgroup?.leave()
    }

    // MARK: Answers

    func withPod<R: Sendable>(_ body: @Sendable (Pod) async throws -> R) async throws -> R {
        try await answering {
            guard case .running(let pod) = phase else {
                throw SandboxError.notFound("container \(surroundings.id)")
            }
            do { return try await body(pod) } catch { throw await pod.explain(error) }
        }
    }

    /// The guest's console, also while the machine is still starting.
    func console() async throws -> Console {
        try await answering {
            guard let machine else { throw SandboxError.wrongState("pod \(surroundings.id) has no machine yet") }
            return machine.console
        }
    }

    /// The one place where the sandbox's errors become gRPC codes.
    func answering<R: Sendable>(_ body: () async throws -> R) async throws -> R {
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

/// - Parameter nanoseconds: since the epoch.
public func timestamp(_ nanoseconds: Int64) -> Google_Protobuf_Timestamp {
    .with {
        $0.seconds = nanoseconds / 1_000_000_000
        $0.nanos = Int32(nanoseconds % 1_000_000_000)
    }
}
