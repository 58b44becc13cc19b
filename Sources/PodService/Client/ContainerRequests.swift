import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Sandbox
import SwiftProtobuf
import TTRPC
import TaskAPI

/// The state of a container, as `state` and `list` print it: that of the runtime specification, with runc's further fields.
public struct ContainerStateReport: Codable, Sendable, Equatable {
    public var ociVersion: String
    public var id: String
    /// Of the container's process on the host; 0 when the container is stopped.
    public var pid: Int32
    public var status: ContainerStatus
    /// Absolute path.
    public var bundle: String
    public var rootfs: String
    /// RFC 3339, UTC.
    public var created: String
    public var annotations: [String: String]?
    /// The name of the user whose the container is.
    public var owner: String
}

extension Runtime {
    /// `state`.
    public func state(_ id: String) async throws -> ContainerStateReport {
        try await asking {
            if records.read(id) == nil, records.isTaken(id) {
                // Its record is written when its pod's server is there.
                return ContainerStateReport(
                    ociVersion: specVersion, id: id, pid: 0, status: .creating, bundle: "", rootfs: "", created: "",
                    annotations: nil, owner: userName(records.owner(id)))
            }
            return try await report(open(id))
        }
    }

    private func report(_ container: OpenContainer) async throws -> ContainerStateReport {
        let record = container.record
        let (status, pid) = try await container.status()
        return ContainerStateReport(
            ociVersion: specVersion, id: record.id, pid: pid, status: status, bundle: record.bundle,
            rootfs: record.rootfs, created: record.created,
            annotations: record.annotations.isEmpty ? nil : record.annotations,
            owner: userName(records.owner(record.id)))
    }

    /// The ids of all containers, sorted.
    public var containerIDs: [String] { records.all() }

    /// `list`: all containers, by their ids. One that goes meanwhile is left out.
    public func list() async throws -> [ContainerStateReport] {
        var reports: [ContainerStateReport] = []
        for id in records.all() {
            do { reports.append(try await state(id)) } catch SandboxError.notFound { continue }
        }
        return reports
    }

    /// `start`.
    public func start(_ id: String) async throws {
        try await asking {
            let container = try await open(id)
            let (status, _) = try await container.status()
            switch status {
            case .created: break
            case .stopped: throw SandboxError.wrongState("cannot start a container that has stopped")
            case .running, .paused: throw SandboxError.wrongState("cannot start an already running container")
            case .creating: throw SandboxError.wrongState("cannot start a container that is being created")
            }
            _ = try await container.server().start(
                .with { $0.id = id }, metadata: CommandTrace.metadata, timeout: Runtime.requestTimeout)
        }
    }

    /// `kill`.
    ///
    /// - Parameter all: whether every process of the container gets it.
    public func kill(_ id: String, signal: Int32, all: Bool) async throws {
        try await asking {
            let container = try await open(id)
            let (status, _) = try await container.status()
            if status == .stopped {
                // runc's --all has nothing left to do then.
                if all { return }
                throw SandboxError.wrongState("container not running")
            }
            do throws(TTRPCError) {
                try await container.kill(signal, all: all)
            } catch {
                guard error.code == .notFound else { throw error }
                throw SandboxError.wrongState("container not running")
            }
        }
    }

    public func pause(_ id: String) async throws {
        try await asking {
            _ = try await running(id).pause(.with { $0.id = id }, timeout: Runtime.requestTimeout)
        }
    }

    public func resume(_ id: String) async throws {
        try await asking {
            _ = try await running(id).resume(.with { $0.id = id }, timeout: Runtime.requestTimeout)
        }
    }

    /// `update`: what `resources` leaves out stays as it is.
    public func update(_ id: String, _ resources: Linux.Resources) async throws {
        try await asking {
            let bytes = try JSON.encode(resources)
            _ = try await running(id).update(
                .with {
                    $0.id = id
                    $0.resources = .with { $0.value = Data(bytes) }
                }, timeout: Runtime.requestTimeout)
        }
    }

    /// The ids on the host of the processes that stand for those of a container.
    public func hostPIDs(_ id: String) async throws -> [Int32] {
        try await asking {
            try await running(id).pids(.with { $0.id = id }, timeout: Runtime.requestTimeout).processes.map {
                Int32(bitPattern: $0.pid)
            }
        }
    }

    /// The processes of a container in the guest.
    func processes(_ id: String) async throws -> [PodProcess] {
        try await asking {
            let container = try await open(id)
            guard let inspection = container.inspection else {
                throw SandboxError.wrongState("container \(id) is not running")
            }
            let all = try await inspection.processes(.init(), timeout: Runtime.requestTimeout).containers
            return all.first { $0.id == id }?.processes ?? []
        }
    }

    /// What a container's cgroup in the guest has counted.
    func metrics(_ id: String) async throws -> MetricsMetrics {
        try await asking {
            let reply = try await running(id).stats(.with { $0.id = id }, timeout: Runtime.requestTimeout)
            return try MetricsMetrics(serializedBytes: reply.stats.value)
        }
    }

    /// The server of a container's pod.
    func running(_ id: String) async throws -> TaskServiceClient { try await open(id).server() }
}

extension OpenContainer {
    func kill(_ signal: Int32, all: Bool) async throws(TTRPCError) {
        guard let task else { return }
        _ = try await task.kill(
            .with {
                $0.id = id
                $0.signal = UInt32(bitPattern: signal)
                $0.all = all
            }, timeout: .seconds(60))
    }
}

/// The name of a user; `#ID` for one that has none.
private func userName(_ id: uid_t) -> String {
    guard let entry = getpwuid(id) else { return "#\(id)" }
    return String(cString: entry.pointee.pw_name)
}
