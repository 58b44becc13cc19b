import AgentContract
import Glibc
import OCISpec
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// What an engine asks of a pod's tasks while they run.
extension TaskAPIService {
    func state(_ request: TaskStateRequest, context: TTRPCContext) async throws -> TaskStateResponse {
        try await answering {
            let status = try await pod.status(request.id, exec: request.execID)
            return .with {
                $0.id = request.id
                $0.execID = request.execID
                $0.bundle = status.bundle
                $0.pid = status.pid
                $0.terminal = status.terminal
                ($0.stdin, $0.stdout, $0.stderr) = (status.streams.stdin, status.streams.stdout, status.streams.stderr)
                switch status.state {
                // The wire has no word for it; nothing runs yet.
                case .creating, .created: $0.status = .created
                case .running: $0.status = .running
                case .paused: $0.status = .paused
                case .stopped(let record):
                    $0.status = .stopped
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            }
        }
    }

    func kill(_ request: TaskKillRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await pod.signal(request.id, exec: request.execID, request.signal, all: request.all)
            return .init()
        }
    }

    func resizePty(_ request: TaskResizePtyRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await pod.resize(request.id, exec: request.execID, width: request.width, height: request.height)
            return .init()
        }
    }

    func closeIO(_ request: TaskCloseIORequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            if request.stdin { try await pod.closeInput(request.id, exec: request.execID) }
            return .init()
        }
    }

    func pids(_ request: TaskPidsRequest, context: TTRPCContext) async throws -> TaskPidsResponse {
        try await answering {
            // Engines look these ids up among the host's processes (docker top), so the guest's would name others.
            let pids = try await pod.hostPIDs(request.id)
            return .with { $0.processes = pids.map { pid in .with { $0.pid = pid } } }
        }
    }

    func pause(_ request: TaskPauseRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await pod.pause(request.id)
            return .init()
        }
    }

    func resume(_ request: TaskResumeRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await pod.resume(request.id)
            return .init()
        }
    }

    func update(_ request: TaskUpdateTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            let resources = try JSON.decode(
                Linux.Resources.self, from: Array(request.resources.value), file: "resources")
            try await pod.update(request.id, resources)
            return .init()
        }
    }

    func stats(_ request: TaskStatsRequest, context: TTRPCContext) async throws -> TaskStatsResponse {
        try await answering {
            let metrics = MetricsMetrics(try await pod.statistics(request.id))
            return try .with {
                $0.stats = try .with {
                    $0.typeURL = MetricsMetrics.protoMessageName
                    $0.value = try metrics.serializedBytes()
                }
            }
        }
    }

    func checkpoint(_ request: TaskCheckpointTaskRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
        try await answering(failure: "OCI runtime checkpoint failed") {
            let options = try RuncOptionsCheckpointOptions(checkpoint: request.options)
            try await pod.checkpoint(
                .container(request.id), to: options.imagePath.isEmpty ? request.path : options.imagePath,
                isLeftRunning: !options.exit)
            return .init()
        }
    }

    func connect(_ request: TaskConnectRequest, context: TTRPCContext) async throws -> TaskConnectResponse {
        let pid = try? await pod.status(request.id, exec: "").pid
        return .with {
            $0.shimPid = UInt32(bitPattern: getpid())
            $0.taskPid = pid ?? 0
            $0.version = martletVersion
        }
    }
}
