import Glibc
public import LinuxSystem
import Synchronization

/// The host's end of the control socket of one `martlet-device` or `martlet-vmm` process. Thread-safe; calls block until
/// the reply or their deadline.
///
/// The process ends when the last reference to the client does.
public final class ControlClient: Sendable {
    /// How long a process may take for what doesn't depend on the guest.
    static let timeout = Duration.seconds(10)

    fileprivate final class State: Sendable {
        struct Calls {
            var nextSequence: UInt64 = 1
            var waiting: [UInt64: Promise<Result<ControlReply, DeviceError>>] = [:]
            /// Why no more requests are taken.
            var closed: DeviceError?
        }
        let control: ControlSocket
        let calls = Mutex(Calls())
        init(_ control: ControlSocket) { self.control = control }

        func close(_ error: DeviceError) {
            let waiting = calls.withLock { calls in
                calls.closed = error
                defer { calls.waiting = [:] }
                return calls.waiting.values.map { $0 }
            }
            for reply in waiting { reply.settle(.failure(error)) }
        }
    }

    private let state: State

    /// - Parameters:
    ///   - control: the host's end of the socket pair whose other end is the process's descriptor 3.
    ///   - onEvent: called on a thread of the client's own, also with what is wrong on the socket (`.broken`).
    ///   - onClose: called once, after the last event: the control socket is closed. The process has ended, or did not
    ///     start.
    public init(
        control: SharedDescriptor, onEvent: @Sendable @escaping (ControlEvent) -> Void,
        onClose: @Sendable @escaping () -> Void = {}
    ) {
        let state = State(ControlSocket(control))
        self.state = state
        setSendTimeout(control.raw, .seconds(5))
        do {
            try startThread("device control") {
                Self.read(state, onEvent)
                onClose()
            }
        } catch {
            state.close(.closed)
            onEvent(.broken(reason: "\(error)"))
        }
    }

    deinit { shutdown(state.control.socket.raw, Int32(SHUT_RDWR)) }

    /// A request on its way, whose reply is not waited for yet.
    public struct PendingReply: Sendable {
        fileprivate let promise: Promise<Result<ControlReply, DeviceError>>
        fileprivate let sequence: UInt64
        fileprivate let state: State
        fileprivate let timeout: Duration

        /// Blocks until the process has replied.
        ///
        /// - Throws: what the reply says, when the request was not done.
        @discardableResult
        public func wait() throws(DeviceError) -> ControlReply {
            defer { state.calls.withLock { _ = $0.waiting.removeValue(forKey: sequence) } }
            guard let result = promise.wait(timeout: timeout) else { throw .timedOut }
            switch try result.get() {
            case .failed(let reason): throw .failed(reason)
            case .refused: throw .refused
            case .notReady: throw .notReady
            case .timedOut: throw .timedOut
            case .done, .booted, .saved, .statistics, .disk: return try result.get()
            }
        }
    }

    /// Sends a request with copies of its descriptors.
    func post(
        _ request: ControlRequest<Int32>, timeout: Duration = ControlClient.timeout
    ) throws(DeviceError) -> PendingReply {
        let promise: Promise<Result<ControlReply, DeviceError>>
        do { promise = try Promise() } catch { throw .system(error) }
        let registered: Result<UInt64, DeviceError> = state.calls.withLock { calls in
            if let error = calls.closed { return .failure(error) }
            let sequence = calls.nextSequence
            calls.nextSequence &+= 1
            calls.waiting[sequence] = promise
            return .success(sequence)
        }
        let sequence = try registered.get()
        do {
            try state.control.send(request, sequence: sequence)
        } catch {
            state.calls.withLock { _ = $0.waiting.removeValue(forKey: sequence) }
            throw error.errno == .brokenPipe ? .closed : .system(error)
        }
        return PendingReply(promise: promise, sequence: sequence, state: state, timeout: timeout)
    }

    /// What the process has counted. One that does not reply within `timeout` tells nothing.
    public func statistics(timeout: Duration) throws(DeviceError) -> ProcessStatistics {
        guard case .statistics(let statistics) = try post(.statistics, timeout: timeout).wait() else {
            throw .failed("statistics: the process replied something else")
        }
        return statistics
    }

    private static func read(_ state: State, _ onEvent: (ControlEvent) -> Void) {
        do throws(ControlError) {
            while let (sequence, answer) = try state.control.receiveAnswer() {
                switch answer {
                case .reply(let reply):
                    state.calls.withLock { $0.waiting[sequence] }?.settle(.success(reply))
                case .event(let event): onEvent(event)
                }
            }
            state.close(.closed)
        } catch {
            state.close(.failed("\(error)"))
            onEvent(.broken(reason: "\(error)"))
        }
    }
}
