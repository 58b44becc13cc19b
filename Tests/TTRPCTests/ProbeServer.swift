import CLinux
import Glibc
import LinuxSystem
internal import SwiftProtobuf
import Synchronization
import Testing

@testable import TTRPC

/// The service of probe.proto, as its comments say.
final class Probe: ProbeService {
    /// Methods that ended by cancellation.
    let cancelled = Atomic(0)
    /// Methods under way.
    let running = Atomic(0)

    func echo(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem {
        var answer = request
        for (key, value) in context.metadata.entries { answer.metadata[key, default: ""] += value + ";" }
        return answer
    }

    func fail(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem {
        let detail = try Google_Protobuf_Any(message: request)
        throw TTRPCError(TTRPCError.Code(rawValue: Int32(request.number)) ?? .unknown, request.text, details: [detail])
    }

    func sleep(_ request: ProbeItem, context: TTRPCContext) async throws -> ProbeItem {
        running.add(1, ordering: .relaxed)
        defer { running.subtract(1, ordering: .relaxed) }
        do {
            try await Task.sleep(for: .milliseconds(request.number))
        } catch {
            cancelled.add(1, ordering: .relaxed)
            throw error
        }
        return request
    }

    func count(_ request: ProbeItem, responses: TTRPCSender<ProbeItem>, context: TTRPCContext) async throws {
        for number in 0..<max(0, request.number) {
            var item = ProbeItem()
            item.number = number
            item.blob = request.blob
            try await responses.send(item)
        }
        if !request.text.isEmpty { throw TTRPCError(.aborted, request.text) }
    }

    func sum(_ requests: TTRPCReceiver<ProbeItem>, context: TTRPCContext) async throws -> ProbeItem {
        var answer = ProbeItem()
        for try await item in requests { answer.number &+= item.number }
        return answer
    }

    func chat(
        _ requests: TTRPCReceiver<ProbeItem>, responses: TTRPCSender<ProbeItem>, context: TTRPCContext
    ) async throws {
        for try await item in requests { try await responses.send(item) }
    }
}

extension ProbeItem {
    init(_ number: Int64 = 0, _ text: String = "", blob: Int = 0) {
        self.init()
        self.number = number
        self.text = text
        self.blob = .init(repeating: 0x5a, count: blob)
    }
}

/// A server of the probe service and a client of it over a socket pair.
struct Pair {
    let probe = Probe()
    let server: TTRPCServer
    let client: TTRPCClient
    var service: ProbeServiceClient { ProbeServiceClient(client) }

    init(
        peer: TTRPCClient.Peer = .host, onClose: (@Sendable (TTRPCError) -> Void)? = nil
    ) async throws {
        let (near, far) = try SharedDescriptor.socketPair(SOCK_STREAM)
        server = TTRPCServer([.probe(probe)])
        try await server.serve(connected: far)
        client = try await TTRPCClient(connected: near, peer: peer, onClose: onClose)
    }
}

/// Waits until `condition` holds, five seconds at most.
func eventually(_ condition: () -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + .seconds(5)
    while !condition() {
        if ContinuousClock.now > deadline { return false }
        try await Task.sleep(for: .milliseconds(5))
    }
    return true
}

/// The error that `body` throws; nil when it throws none.
func failure<T>(of body: () async throws(TTRPCError) -> T) async -> TTRPCError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error
    }
}
