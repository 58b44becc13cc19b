public import LinuxSystem
public import VMMControl
public import Virtio

/// A vsock device whose connections the host asks for over a control socket. It reports `started` when the guest's driver
/// has started the device.
public final class VsockService {
    public let backend: VsockBackend

    /// - Parameters:
    ///   - queueCount: as `VsockBackend` has it.
    ///   - onBroken: the guest broke a ring; the device has stopped.
    public init(
        guestCID: UInt64, queueCount: Int, control: ControlSocket, loop: EventLoop,
        onBroken: @escaping (String) -> Void
    ) {
        backend = VsockBackend(
            guestCID: guestCID, queueCount: queueCount, loop: loop,
            finished: { control.reply($0, $1.reply) }, onBroken: onBroken)
        // Once, however often the guest starts its driver.
        var isReported = false
        backend.onStarted = {
            if !isReported { control.report(.started) }
            isReported = true
        }
    }

    /// Connects `stream` to a port of the guest; the reply to request `sequence` comes when the guest has answered.
    public func connect(_ sequence: UInt64, port: UInt32, _ stream: SharedDescriptor, timeout: Duration) {
        let deadline = monotonicNanoseconds().addingReportingOverflow(timeout.clampedNanoseconds)
        backend.device.connect(
            port: port, socket: stream, token: sequence, deadline: deadline.overflow ? .max : deadline.partialValue)
    }
}

extension VsockConnectResult {
    fileprivate var reply: ControlReply {
        switch self {
        case .connected: .done
        case .refused: .refused
        case .notReady: .notReady
        case .timedOut: .timedOut
        case .tooMany: .failed(reason: "too many connections to the guest")
        }
    }
}
