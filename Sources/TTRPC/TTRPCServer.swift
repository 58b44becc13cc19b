public import LinuxSystem
import NIOCore
import NIOPosix
import Synchronization

/// Serves services on any number of sockets. Each request runs in a task of its own, which is cancelled at the request's deadline
/// or when its connection ends.
public final class TTRPCServer: Sendable {
    private struct State {
        var listeners: [any Channel] = []
        var connections: [ObjectIdentifier: ServerConnection] = [:]
        var stopping = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private let services: [String: TTRPCServiceDescription]
    private let state = Mutex(State())

    public init(_ services: [TTRPCServiceDescription]) {
        self.services = Dictionary(services.map { ($0.name, $0) }) { _, last in last }
    }

    /// Serves all clients of a listening stream socket, Unix or vsock. Uses a duplicate of the descriptor.
    public func serve(listening socket: SharedDescriptor) async throws(TTRPCError) {
        let descriptor = try duplicate(socket, listening: true)
        try await listen("serve a listening socket") { $0.withBoundSocket(descriptor) }
    }

    /// Serves on a new Unix socket at `path`. The path must not exist. It is not removed at the end.
    public func serve(unixPath path: String) async throws(TTRPCError) {
        try await listen("listen on \(path)") { $0.bind(unixDomainSocketPath: path) }
    }

    /// Serves on vsock `port`, for all context ids.
    public func serve(vsockPort port: UInt32) async throws(TTRPCError) {
        try await listen("listen on vsock port \(port)") {
            $0.bind(to: VsockAddress(cid: .any, port: .init(rawValue: port)))
        }
    }

    /// Serves the client at the other end of a connected stream socket. Uses a duplicate of the descriptor. The caller should close
    /// its own: the other side sees the end of the connection only when all duplicates are closed.
    public func serve(connected socket: SharedDescriptor) async throws(TTRPCError) {
        let descriptor = try duplicate(socket, listening: false)
        do {
            _ = try await ClientBootstrap(group: sharedLoop).channelInitializer { self.accept($0) }
                .withConnectedSocket(descriptor).get()
        } catch {
            throw TTRPCError(.unavailable, "serve a connected socket: \(error)")
        }
    }

    /// The number of connections.
    public var connectionCount: Int { state.withLock { $0.connections.count } }

    /// Stops listening, lets requests in progress end within `grace` and sends their responses, then closes all connections, which
    /// cancels the remaining requests. A method of this server must not await it.
    public func stop(grace: Duration = .zero) async {
        let (listeners, connections) = state.withLock { state in
            state.stopping = true
            return (state.listeners, Array(state.connections.values))
        }
        for listener in listeners { try? await listener.close().get() }
        for connection in connections { connection.drain() }
        let force = Task {
            try? await Task.sleep(for: grace)
            let stopped = TTRPCError(.unavailable, "the server is shutting down")
            for connection in self.state.withLock({ Array($0.connections.values) }) {
                connection.onLoop { connection.close(stopped) }
            }
        }
        await withCheckedContinuation { waiter in
            let done = state.withLock { state in
                if state.connections.isEmpty { return true }
                state.waiters.append(waiter)
                return false
            }
            if done { waiter.resume() }
        }
        force.cancel()
    }

    private func listen(
        _ doing: String, _ bind: (ServerBootstrap) -> EventLoopFuture<any Channel>
    ) async throws(TTRPCError) {
        let bootstrap = ServerBootstrap(group: sharedLoop)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    // When there are no descriptors left, accepting waits instead of spinning.
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                }
            }
            .childChannelInitializer { self.accept($0) }
        do {
            let listener = try await bind(bootstrap).get()
            let late = state.withLock { state in
                if !state.stopping { state.listeners.append(listener) }
                return state.stopping
            }
            if late { try await listener.close().get() }
        } catch {
            throw TTRPCError(.unavailable, "\(doing): \(error)")
        }
    }

    private func accept(_ channel: any Channel) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            let connection = ServerConnection(channel, services) { [weak self] in self?.ended($0) }
            // First, because this fails on a channel that is already closed and would report nothing more.
            try channel.pipeline.syncOperations.addHandler(connection)
            let late = state.withLock { state in
                if !state.stopping { state.connections[ObjectIdentifier(connection)] = connection }
                return state.stopping
            }
            if late { throw TTRPCError(.unavailable, "the server is shutting down") }
        }
    }

    private func ended(_ connection: ServerConnection) {
        let waiters = state.withLock { state in
            state.connections[ObjectIdentifier(connection)] = nil
            defer { if state.connections.isEmpty { state.waiters = [] } }
            return state.connections.isEmpty ? state.waiters : []
        }
        for waiter in waiters { waiter.resume() }
    }
}
