import Sandbox
import TTRPC
public import TaskAPI

/// A running pod of this host, asked by Martlet's own commands.
public struct PodInspection: Sendable {
    private let client: InspectionServiceClient

    /// Connects to a pod's server.
    ///
    /// - Parameters:
    ///   - name: the pod's id, or the beginning of one that no other pod's id has.
    ///   - root: `paths.root`.
    public init(pod name: String, root: String) async throws {
        let pod = try PodList.find(name, in: PodList.all(root: root))
        guard pod.isRunning else {
            throw SandboxError.wrongState("pod \(pod.id): its server has died; martlet check --clean clears it away")
        }
        client = InspectionServiceClient(try await TTRPCClient(unixPath: pod.socket))
    }

    /// The pod's containers and what runs in them.
    public func containers() async throws -> [PodContainer] { try await client.processes(.init()).containers }

    /// Has the file systems on the pod's disks stand still, for so many seconds at most.
    func freezeDisks(seconds: Int) async throws {
        _ = try await client.freezeDisks(
            .with { $0.timeoutMs = UInt32(clamping: seconds * 1000) }, timeout: Runtime.requestTimeout)
    }

    /// - Returns: whether they stood still until now.
    func thawDisks() async throws -> Bool {
        try await client.thawDisks(.init(), timeout: Runtime.requestTimeout).wereFrozen
    }

    /// The guest's console from its line `first` on, as far as it is kept: the last 200 lines.
    ///
    /// - Returns: the lines, with the number of the first of them, counted from 0; nil when the pod has ended.
    public func console(from first: UInt64) async throws -> PodConsoleResponse? {
        do { return try await client.console(.with { $0.first = first }) } catch {
            // A machine that had a console and has none is being ended.
            if error.code == .unavailable || first > 0 && error.code == .failedPrecondition { return nil }
            throw error
        }
    }

    /// What has happened in the pod from its event `first` on, as far as it is kept.
    ///
    /// - Parameter isPatient: wait for an event where there is none yet, half a minute at most.
    /// - Returns: the events, and the number of the next, counted from 1; nil when the pod has ended.
    public func events(from first: UInt64, isPatient: Bool) async throws -> (events: [PodEventReport], next: UInt64)? {
        do {
            let reply = try await client.events(
                .with {
                    $0.first = first
                    $0.doesNotWait = !isPatient
                }, timeout: .seconds(60))
            return (reply.events.map(PodEventReport.init), reply.first + UInt64(reply.events.count))
        } catch {
            if error.code == .unavailable { return nil }
            throw error
        }
    }
}

/// An event of a pod, as JSON has it.
public struct PodEventReport: Encodable, Sendable {
    /// RFC 3339.
    public let time: String
    /// `created`, `started`, `exec-added`, `exec-started`, `exited`, `deleted`, `paused`, `resumed`, `oom`.
    public let type: String
    public let container: String
    /// nil: of the container.
    public let exec: String?
    /// Of `exited`.
    public let exitStatus: UInt32?

    init(_ event: PodTaskEvent) {
        (time, type, container) = (Timestamp.text(event.time), event.type, event.containerID)
        exec = event.execID.isEmpty ? nil : event.execID
        exitStatus = event.type == "exited" ? event.exitStatus : nil
    }
}
