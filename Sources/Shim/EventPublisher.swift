import FoundationEssentials
import LinuxSystem
import Logging
import PodService
import Sandbox
import SwiftProtobuf
import Synchronization
import TTRPC
import TaskAPI

/// Forwards events to containerd, one after the other. An event is kept until containerd has taken it, however long
/// containerd is away.
final class EventPublisher: Sendable {
    private let queue: AsyncStream<EventEnvelope>.Continuation
    private let namespace: String
    private let work: Task<Void, Never>
    /// How many events are not delivered yet.
    private final class Waiting: Sendable { let count = Atomic(0) }
    private let pending = Waiting()
    /// While so many wait, no event is added that the guest causes by itself.
    private static let maximumWaiting = 1024

    /// - Parameter address: containerd's ttrpc socket; empty: events are dropped.
    init(address: String, namespace: String, logger: Logger) {
        self.namespace = namespace
        let (stream, queue) = AsyncStream.makeStream(of: EventEnvelope.self)
        self.queue = queue
        let path = address.hasPrefix("unix://") ? String(address.dropFirst(7)) : address
        if path.isEmpty { logger.warning("TTRPC_ADDRESS is not set: events are dropped") }
        let pending = pending
        work = Task {
            var client: EventsServiceClient?
            for await envelope in stream {
                if !path.isEmpty { client = await Self.deliver(envelope, client, path, logger) }
                pending.count.subtract(1, ordering: .relaxed)
            }
        }
    }

    /// Queues an event. OOM, which a guest can cause as often as it likes, is left out while containerd is away for long.
    func publish(_ event: PodEvent) {
        let isGuests = if case .outOfMemory = event { true } else { false }
        if isGuests, pending.count.load(ordering: .relaxed) >= Self.maximumWaiting { return }
        do {
            let (topic, message) = Self.wire(event)
            let now = timestamp(wallClockNanoseconds())
            let envelope = try EventEnvelope.with {
                $0.timestamp = now
                $0.namespace = namespace
                $0.topic = topic
                $0.event = try .with {
                    $0.typeURL = type(of: message).protoMessageName
                    $0.value = try message.serializedBytes()
                }
            }
            pending.count.add(1, ordering: .relaxed)
            queue.yield(envelope)
        } catch {}  // a message of our own making can be encoded
    }

    /// How many events are not delivered yet.
    var count: Int { pending.count.load(ordering: .relaxed) }

    /// Waits until every event is delivered, at most for `limit`.
    func finish(within limit: Duration) async {
        queue.finish()
        await waiting(atMost: limit) { [work] in await work.value }
        work.cancel()
    }

    /// - Returns: the connection, for the next event.
    private static func deliver(
        _ envelope: EventEnvelope, _ client: EventsServiceClient?, _ path: String, _ logger: Logger
    ) async -> EventsServiceClient? {
        var client = client
        var pause = Duration.milliseconds(50)
        while !Task.isCancelled {
            do throws(TTRPCError) {
                let connected: EventsServiceClient
                if let client {
                    connected = client
                } else {
                    connected = EventsServiceClient(try await TTRPCClient(unixPath: path, timeout: .seconds(5)))
                }
                client = connected
                _ = try await connected.forward(.with { $0.envelope = envelope }, timeout: .seconds(10))
                return client
            } catch {
                guard [.unavailable, .cancelled, .deadlineExceeded].contains(error.code) else {
                    logger.error("event \(envelope.topic): containerd refused it: \(error.message)")
                    return client
                }
                logger.debug("event \(envelope.topic): \(error); trying again")
                client = nil
                try? await Task.sleep(for: pause)
                pause = min(pause * 2, .seconds(2))
            }
        }
        return nil
    }

    /// An event's topic and message.
    static func wire(_ event: PodEvent) -> (topic: String, message: any Message) {
        switch event {
        case .created(let container, let bundle, let streams, let terminal, let pid):
            (
                "/tasks/create",
                EventTaskCreate.with {
                    $0.containerID = container
                    $0.bundle = bundle
                    $0.pid = pid
                    $0.io = .with {
                        ($0.stdin, $0.stdout, $0.stderr) = (streams.stdin, streams.stdout, streams.stderr)
                        $0.terminal = terminal
                    }
                }
            )
        case .started(let container, let pid):
            (
                "/tasks/start",
                EventTaskStart.with {
                    $0.containerID = container
                    $0.pid = pid
                }
            )
        case .execAdded(let container, let exec):
            (
                "/tasks/exec-added",
                EventTaskExecAdded.with {
                    $0.containerID = container
                    $0.execID = exec
                }
            )
        case .execStarted(let container, let exec, let pid):
            (
                "/tasks/exec-started",
                EventTaskExecStarted.with {
                    $0.containerID = container
                    $0.execID = exec
                    $0.pid = pid
                }
            )
        case .exited(let container, let exec, let pid, let record):
            (
                "/tasks/exit",
                EventTaskExit.with {
                    $0.containerID = container
                    $0.id = exec.isEmpty ? container : exec
                    $0.pid = pid
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            )
        case .deleted(let container, let pid, let record):
            (
                "/tasks/delete",
                EventTaskDelete.with {
                    $0.containerID = container
                    $0.pid = pid
                    $0.exitStatus = record.status
                    $0.exitedAt = timestamp(record.at)
                }
            )
        case .paused(let container): ("/tasks/paused", EventTaskPaused.with { $0.containerID = container })
        case .resumed(let container): ("/tasks/resumed", EventTaskResumed.with { $0.containerID = container })
        case .outOfMemory(let container): ("/tasks/oom", EventTaskOOM.with { $0.containerID = container })
        }
    }
}
