import Glibc
public import LinuxSystem
import Synchronization

/// What a device process tells by itself.
public enum DeviceNotice: Equatable, Sendable {
    /// The device has stopped for good: the guest broke a ring, or the machine's process broke the protocol.
    case broken(reason: String)
    /// The machine has stopped.
    case ended(ControlMessage.End, reason: String)
    /// The control socket is closed: the process has ended, or never spoke.
    case closed
}

/// Why a device process did not do as asked.
public enum DeviceError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The guest answered the connection with RST: nobody listens on the port yet.
    case refused
    /// The guest's driver has not started the device yet.
    case notReady
    /// The guest, or the device process, did not answer in time.
    case timedOut
    /// The device process said why it failed.
    case failed(String)
    /// The device process is gone.
    case closed
    /// The request could not be sent.
    case system(SystemError)

    public var description: String {
        switch self {
        case .refused: "connection refused by the guest"
        case .notReady: "the guest has not started the device"
        case .timedOut: "no answer in time"
        case .failed(let reason): reason
        case .closed: "the device process is gone"
        case .system(let error): "\(error)"
        }
    }
}

/// The host's word with one `martlet-device` process. Thread-safe; calls block until the answer or their deadline.
///
/// The process ends when the last reference to the client does.
public final class ControlClient: Sendable {
    /// How long a device process may take for what doesn't depend on the guest.
    static let patience = Duration.seconds(10)

    fileprivate final class State: Sendable {
        struct Calls {
            var nextSequence: UInt64 = 1
            var waiting: [UInt64: Promise<Result<ControlMessage, DeviceError>>] = [:]
            var closed = false
        }
        let control: ControlSocket
        let calls = Mutex(Calls())
        init(_ control: ControlSocket) { self.control = control }
    }

    private let state: State

    /// - Parameters:
    ///   - control: the host's end of the socket pair whose other end is the process's descriptor 3.
    ///   - onNotice: called on a thread of the client's own.
    public init(control: SharedDescriptor, onNotice: @Sendable @escaping (DeviceNotice) -> Void) {
        let state = State(ControlSocket(control))
        self.state = state
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(control.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        do {
            try startThread("device control") { Self.read(state, onNotice) }
        } catch {
            Self.close(state)
            onNotice(.broken(reason: "\(error)"))
        }
    }

    deinit { shutdown(state.control.socket.raw, Int32(SHUT_RDWR)) }

    /// A request on its way, whose answer is not waited for yet.
    public struct Answer: Sendable {
        fileprivate let promise: Promise<Result<ControlMessage, DeviceError>>
        fileprivate let sequence: UInt64
        fileprivate let state: State
        fileprivate let patience: Duration

        /// Blocks until the process has answered; the reply's `number`.
        @discardableResult
        public func wait() throws(DeviceError) -> UInt64 {
            defer { state.calls.withLock { _ = $0.waiting.removeValue(forKey: sequence) } }
            guard let result = promise.wait(timeout: patience) else { throw .timedOut }
            return try result.get().number
        }
    }

    /// Makes the process serve a vsock device to the machine at the other end of `vhostUser`.
    public func startVsock(vhostUser: Int32, guestCID: UInt64) throws(DeviceError) -> Answer {
        var message = ControlMessage(.startVsock)
        message.number = guestCID
        return try post(message, [vhostUser])
    }

    /// Makes the process serve a file device called `tag` to the machine at the other end of `vhostUser`.
    /// - Parameter proc: the root of a procfs that shows the device process.
    public func startFiles(vhostUser: Int32, tag: String, proc: Int32) throws(DeviceError) -> Answer {
        var message = ControlMessage(.startFiles)
        message.text = tag
        return try post(message, [vhostUser, proc])
    }

    /// Makes the process serve a disk to the machine at the other end of `vhostUser`.
    /// - Parameters:
    ///   - file: a raw file or block device, open for reading and, unless the disk is read-only, writing.
    ///   - id: what the guest calls the disk's serial number; 20 bytes of it.
    public func startBlock(vhostUser: Int32, file: Int32, readOnly: Bool, id: String) throws(DeviceError) -> Answer {
        var message = ControlMessage(.startBlock)
        message.text = id
        message.flags = readOnly ? ControlMessage.readOnly : 0
        return try post(message, [vhostUser, file])
    }

    /// Makes the file device serve a directory (a detached mount, or an O_PATH descriptor) or a file.
    /// - Parameter name: its path in the device, `FILESYSTEM/ENTRY`; the same FILESYSTEM for all of one file system.
    public func addShare(name: String, directory: Int32, readOnly: Bool) throws(DeviceError) {
        var message = ControlMessage(.addShare)
        message.text = name
        message.flags = readOnly ? ControlMessage.readOnly : 0
        try post(message, [directory]).wait()
    }

    /// Takes a directory or file out of the file device.
    public func removeShare(name: String) throws(DeviceError) {
        var message = ControlMessage(.removeShare)
        message.text = name
        try post(message).wait()
    }

    /// Connects `stream`, one end of a stream socket pair, to a vsock port of the guest. The caller closes its copy.
    /// - Throws: `.refused`, `.notReady`: try again when the guest had time; `.timedOut` past `deadline`.
    public func connect(port: UInt32, stream: Int32, deadline: Duration) throws(DeviceError) {
        var message = ControlMessage(.connect)
        message.port = port
        let parts = max(deadline, .zero).components
        message.number =
            UInt64(clamping: parts.seconds).multipliedReportingOverflow(by: 1_000_000_000).0
            &+ UInt64(clamping: parts.attoseconds / 1_000_000_000)
        try post(message, [stream], patience: max(deadline, .zero) + .seconds(2)).wait()
    }

    /// Sends a request with copies of `descriptors`.
    func post(
        _ request: ControlMessage, _ descriptors: [Int32] = [], patience: Duration = ControlClient.patience
    ) throws(DeviceError) -> Answer {
        if request.text.utf8.count > ControlMessage.maximumText {
            throw .failed("name of \(request.text.utf8.count) bytes is too long")
        }
        do {
            let promise = try Promise<Result<ControlMessage, DeviceError>>()
            let sequence: UInt64? = state.calls.withLock { calls in
                if calls.closed { return nil }
                let sequence = calls.nextSequence
                calls.nextSequence &+= 1
                calls.waiting[sequence] = promise
                return sequence
            }
            guard let sequence else { throw DeviceError.closed }
            var message = request
            message.sequence = sequence
            do throws(SystemError) {
                try state.control.send(message, descriptors: descriptors)
            } catch {
                state.calls.withLock { _ = $0.waiting.removeValue(forKey: sequence) }
                throw error
            }
            return Answer(promise: promise, sequence: sequence, state: state, patience: patience)
        } catch let error as DeviceError {
            throw error
        } catch let error as SystemError {
            throw error.errno == .brokenPipe ? .closed : .system(error)
        } catch {
            throw .failed("\(error)")
        }
    }

    private static func read(_ state: State, _ onNotice: (DeviceNotice) -> Void) {
        do {
            while let (message, _) = try state.control.receive() {
                switch message.kind {
                case .reply:
                    let waiting = state.calls.withLock { $0.waiting[message.sequence] }
                    waiting?.settle(result(message))
                case .broken: onNotice(.broken(reason: message.text))
                case .ended:
                    onNotice(.ended(.init(rawValue: message.number) ?? .unhandled, reason: message.text))
                default: onNotice(.broken(reason: "the device process sent \(message.kind)"))
                }
            }
        } catch {
            onNotice(.broken(reason: "\(error)"))
        }
        close(state)
        onNotice(.closed)
    }

    private static func result(_ reply: ControlMessage) -> Result<ControlMessage, DeviceError> {
        switch reply.status {
        case .done: .success(reply)
        case .failed: .failure(.failed(reply.text))
        case .refused: .failure(.refused)
        case .notReady: .failure(.notReady)
        case .timedOut: .failure(.timedOut)
        }
    }

    private static func close(_ state: State) {
        let waiting = state.calls.withLock { calls in
            calls.closed = true
            defer { calls.waiting = [:] }
            return calls.waiting.values.map { $0 }
        }
        for answer in waiting { answer.settle(.failure(.closed)) }
    }
}
