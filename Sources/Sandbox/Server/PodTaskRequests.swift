import Glibc
import OCISpec
import SwiftProtobuf
import TTRPC
import TaskAPI

/// What an engine asks of a pod's tasks while they run.
extension PodTaskService {
    func state(_ request: TaskStateRequest, context: TTRPCContext) async throws -> TaskStateResponse {
        try await withPod { pod in
            let container = try await pod.find(request.id)
            let process = try await pod.find(request.id, request.execID)
            return .with {
                $0.id = container.id
                $0.execID = request.execID
                $0.bundle = container.bundle
                $0.pid = pod.pid
                $0.terminal = process.terminal
                ($0.stdin, $0.stdout, $0.stderr) = (process.names.stdin, process.names.stdout, process.names.stderr)
                switch process.phase {
                case .created: $0.status = .created
                case .running: $0.status = container.isPaused ? .paused : .running
                case .stopped(let record):
                    $0.status = .stopped
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    func kill(_ request: TaskKillRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod { pod in
            try await pod.signal(request.id, exec: request.execID, request.signal, all: request.all)
            return .init()
        }
    }

    func resizePty(_ request: TaskResizePtyRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod { pod in
            try await pod.resize(request.id, exec: request.execID, width: request.width, height: request.height)
            return .init()
        }
    }

    /// The terminal of the pod's first container has another size now.
    func resizeTerminal(width: UInt32, height: UInt32) async {
        guard case .running(let pod) = phase else { return }
        do {
            try await pod.resize(surroundings.id, exec: "", width: width, height: height)
        } catch { logger.debug("resize: \(error)") }
    }

    func closeIO(_ request: TaskCloseIORequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod { pod in
            if request.stdin { try await pod.closeInput(request.id, exec: request.execID) }
            return .init()
        }
    }

    func pids(_ request: TaskPidsRequest, context: TTRPCContext) async throws -> TaskPidsResponse {
        try await withPod { pod in
            // Engines look these ids up among the host's processes (docker top), so the guest's would name others.
            _ = try await pod.find(request.id)
            return .with { $0.processes = [.with { $0.pid = pod.pid }] }
        }
    }

    func pause(_ request: TaskPauseRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod { pod in
            try await pod.pause(request.id)
            return .init()
        }
    }

    func resume(_ request: TaskResumeRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await withPod { pod in
            try await pod.resume(request.id)
            return .init()
        }
    }

    func update(_ request: TaskUpdateTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        let policy = configuration.spec
        return try await withPod { pod in
            var resources = try JSON.decode(
                Linux.Resources.self, from: Array(request.resources.value), file: "resources")
            try await self.checkMemory(resources, policy)
            try Unsupported.refuse(resources.unsupported(policy: policy))
            if policy.ineffectiveLimits == .warn { resources.removeIneffectiveLimits() }
            try await pod.update(request.id, resources)
            return .init()
        }
    }

    func stats(_ request: TaskStatsRequest, context: TTRPCContext) async throws -> TaskStatsResponse {
        try await withPod { pod in
            let metrics = MetricsMetrics(try await pod.stats(request.id))
            return try .with {
                $0.stats = try .with {
                    $0.typeURL = MetricsMetrics.protoMessageName
                    $0.value = try metrics.serializedBytes()
                }
            }
        }
    }

    func checkpoint(_ request: TaskCheckpointTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        throw TTRPCError(.unimplemented, SandboxError.unsupported("checkpoint").description)
    }

    func connect(_ request: TaskConnectRequest, context: TTRPCContext) async throws -> TaskConnectResponse {
        .with {
            $0.shimPid = UInt32(bitPattern: getpid())
            $0.taskPid = taskPID
            $0.version = martletVersion
        }
    }
}
