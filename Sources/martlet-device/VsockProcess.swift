import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a vsock device: control socket, machine, guest and streams on one thread.
final class VsockProcess {
    private let control: DeviceControl
    private var backend: VsockBackend?

    init(_ socket: ControlSocket) throws { control = try DeviceControl(socket) }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in handle($0, $1) }
        while !control.ended {
            try control.loop.runOnce(timeoutMilliseconds: backend?.timeout ?? -1)
            backend?.afterRound()
        }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) {
        switch (message.kind, descriptors.count) {
        case (.startVsock, 1): start(message, descriptors[0])
        case (.connect, 1): connect(message, descriptors[0])
        default: control.socket.refuse(message, descriptors.count)
        }
    }

    private func start(_ message: ControlMessage, _ machine: SharedDescriptor) {
        let socket = control.socket
        guard backend == nil else { return socket.reply(message.sequence, .failed, "the device is started already") }
        let backend = VsockBackend(
            guestCID: message.number, loop: control.loop,
            finished: { socket.reply($0, $1.status, $1.reason) }, onBroken: { socket.reportBroken($0) })
        do {
            try control.serve(backend, to: machine)
            self.backend = backend
            socket.reply(message.sequence)
        } catch {
            socket.reply(message.sequence, .failed, "\(error)")
        }
    }

    private func connect(_ message: ControlMessage, _ stream: SharedDescriptor) {
        guard let backend else { return control.socket.reply(message.sequence, .notReady) }
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
