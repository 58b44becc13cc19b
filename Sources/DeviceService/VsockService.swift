public import LinuxSystem
public import VMMControl
public import Virtio

/// A vsock device whose connections the host asks for over a control socket.
public final class VsockService {
    public let backend: VsockBackend
    private let control: ControlSocket

    /// - Parameters:
    ///   - queueCount: as `VsockBackend` has it.
    ///   - onBroken: the guest broke a ring; the device has stopped.
    public init(
        guestCID: UInt64, queueCount: Int, control: ControlSocket, loop: EventLoop,
        onBroken: @escaping (String) -> Void
    ) {
        self.control = control
        backend = VsockBackend(
            guestCID: guestCID, queueCount: queueCount, loop: loop,
            finished: { control.reply($0, $1.status, $1.reason) }, onBroken: onBroken)
    }

    /// Connects `stream` as `message` says; the answer comes when the guest has given one.
    public func connect(_ message: ControlMessage, _ stream: SharedDescriptor) {
        let deadline = monotonicNanoseconds().addingReportingOverflow(message.number)
        backend.device.connect(
            port: message.port, socket: stream, token: message.sequence,
            deadline: deadline.overflow ? .max : deadline.partialValue)
    }
}

extension VsockConnectResult {
    fileprivate var status: ControlMessage.Status {
        switch self {
        case .connected: .done
        case .refused: .refused
        case .notReady: .notReady
        case .timedOut: .timedOut
        case .tooMany: .failed
        }
    }

    fileprivate var reason: String { self == .tooMany ? "too many connections to the guest" : "" }
}
