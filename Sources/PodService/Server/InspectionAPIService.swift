import LinuxSystem
import OCISpec
import Sandbox
import TTRPC
import TaskAPI
import Traces

/// What Martlet's own commands ask of a pod.
struct InspectionAPIService: InspectionService {
    let pod: Pod
    let environment: PodEnvironment
    let log: EventLog
    let collector: SpanCollector
    /// What commands have handed in.
    let handed: HandedProcesses

    init(
        _ pod: Pod, _ environment: PodEnvironment, _ log: EventLog, _ collector: SpanCollector,
        _ handed: HandedProcesses
    ) {
        self.pod = pod
        self.environment = environment
        self.log = log
        self.collector = collector
        self.handed = handed
    }

    /// How long `events` waits for one.
    private static let eventTimeout: Duration = .seconds(30)

    func events(_ request: PodEventsRequest, context: TTRPCContext) async throws -> PodEventsResponse {
        let (first, events) = await log.events(
            from: request.first, within: request.doesNotWait ? .zero : Self.eventTimeout)
        return .with {
            $0.first = first
            $0.events = events.map(\.message)
        }
    }

    func processes(_ request: PodProcessesRequest, context: TTRPCContext) async throws -> PodProcessesResponse {
        try await answering {
            let containers = try await pod.snapshot()
            return .with { $0.containers = containers.map(PodContainer.init) }
        }
    }

    func console(_ request: PodConsoleRequest, context: TTRPCContext) async throws -> PodConsoleResponse {
        try await answering {
            let (first, lines) = try await pod.console().lines(from: Int(clamping: request.first))
            return .with {
                $0.first = UInt64(first)
                $0.lines = lines
            }
        }
    }

    func startInMachine(
        _ request: PodStartInMachineRequest, context: TTRPCContext
    ) async throws -> PodStartInMachineResponse {
        try await answering {
            let program = try JSON.decode(Process.self, from: Array(request.processJson), file: "process")
            guard let process = try handed.take(request.stdin) else {
                throw SandboxError.invalid("stdin: \(request.stdin): not a process that was handed in")
            }
            let tool = MachineTool(path: request.tool, names: request.toolNames)
            try await pod.startInMachine(request.id, program, tool, streams: process)
            return .init()
        }
    }

    func resizeInMachine(
        _ request: PodResizeInMachineRequest, context: TTRPCContext
    ) async throws -> PodResizeInMachineResponse {
        try await answering {
            try await pod.resizeInMachine(request.id, width: request.width, height: request.height)
            return .init()
        }
    }

    func copyFiles(_ request: PodCopyFilesRequest, context: TTRPCContext) async throws -> PodCopyFilesResponse {
        try await answering {
            let stream = try handed.takeStream(request.stream)
            let direction: FileCopy.Direction
            switch request.direction {
            case .pack(let pack): direction = .pack(followsLink: pack.followsLink)
            case .unpack(let unpack):
                direction = .unpack(keepsOwners: unpack.keepsOwners, unpack.isDirectory ? .directory : .place)
            case nil: throw SandboxError.invalid("direction: neither pack nor unpack")
            }
            try await pod.copy(FileCopy(container: request.containerID, path: request.path, direction), stream)
            return .init()
        }
    }

    func checkpoint(_ request: PodCheckpointRequest, context: TTRPCContext) async throws -> PodCheckpointResponse {
        try await answering {
            let scope = request.containerID.isEmpty ? CheckpointScope.pod : .container(request.containerID)
            if request.holder.isEmpty {
                try await pod.checkpoint(scope, to: request.path, isLeftRunning: request.leaveRunning)
            } else {
                let holder = try handed.takeStream(request.holder)
                try await pod.checkpoint(scope, to: request.path, heldBy: holder)
            }
            return .init()
        }
    }

    func prepareRestore(
        _ request: PodPrepareRestoreRequest, context: TTRPCContext
    ) async throws -> PodPrepareRestoreResponse {
        try await answering {
            let containers = try await onThread("bundles") {
                try request.containers.map {
                    RestoredContainer(name: $0.name, id: $0.id, bundle: try Bundle(directory: $0.bundle))
                }
            }
            let annotations = containers.first?.bundle.spec.annotations ?? [:]
            let configuration = try await environment.configuration(options: .init(), annotations: annotations)
            try await pod.prepareRestore(from: request.path, containers, configuration)
            return .init()
        }
    }

    func freezeDisks(_ request: PodFreezeDisksRequest, context: TTRPCContext) async throws -> PodFreezeDisksResponse {
        try await answering {
            try await pod.freezeDisks(for: .milliseconds(request.timeoutMs))
            return .init()
        }
    }

    func thawDisks(_ request: PodThawDisksRequest, context: TTRPCContext) async throws -> PodThawDisksResponse {
        try await answering {
            let wereFrozen = try await pod.thawDisks()
            return .with { $0.wereFrozen = wereFrozen }
        }
    }

    func spans(_ request: PodSpansRequest, context: TTRPCContext) async throws -> PodSpansResponse {
        let (spans, dropped) = collector.remove(trace: request.traceID)
        return .with {
            $0.spans = spans.map(PodSpan.init)
            $0.dropped = UInt64(dropped)
        }
    }
}

extension PodContainer {
    fileprivate init(_ container: ContainerSnapshot) {
        self.init()
        id = container.id
        status = container.state
        processes = container.processes.map { process in
            .with {
                $0.pid = process.pid
                $0.userID = process.userID
                $0.command = process.command
                ($0.parent, $0.age, $0.cpuTime) = (process.parent, process.age, process.cpuTime)
                $0.terminal = process.terminal
            }
        }
    }
}

extension EventLog.Entry {
    fileprivate var message: PodTaskEvent {
        .with {
            $0.time = time
            switch event {
            case .created(let container, _, _, _, _): ($0.type, $0.containerID) = ("created", container)
            case .started(let container, _): ($0.type, $0.containerID) = ("started", container)
            case .execAdded(let container, let exec):
                ($0.type, $0.containerID, $0.execID) = ("exec-added", container, exec)
            case .execStarted(let container, let exec, _):
                ($0.type, $0.containerID, $0.execID) = ("exec-started", container, exec)
            case .exited(let container, let exec, _, let record):
                ($0.type, $0.containerID, $0.execID) = ("exited", container, exec)
                $0.exitStatus = record.status
            case .deleted(let container, _, _): ($0.type, $0.containerID) = ("deleted", container)
            case .paused(let container): ($0.type, $0.containerID) = ("paused", container)
            case .resumed(let container): ($0.type, $0.containerID) = ("resumed", container)
            case .outOfMemory(let container): ($0.type, $0.containerID) = ("oom", container)
            }
        }
    }
}
