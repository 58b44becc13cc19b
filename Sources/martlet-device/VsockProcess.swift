import DeviceService
import LinuxSystem
import VMMControl

/// Serves a vsock device: control socket, machine, guest and streams on one thread.
final class VsockProcess {
    private let control: DeviceControl
    private var service: VsockService?

    init(_ socket: ControlSocket) throws { control = try DeviceControl(socket) }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in handle($0, $1) }
        while !control.ended {
            try control.loop.runOnce(timeoutMilliseconds: service?.backend.timeout ?? -1)
            service?.backend.afterRound()
        }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) {
        switch (message.kind, descriptors.count) {
        case (.startVsock, 1): start(message, descriptors[0])
        case (.connect, 1):
            guard let service else { return control.socket.reply(message.sequence, .notReady) }
            service.connect(message, descriptors[0])
        default: control.socket.refuse(message, descriptors.count)
        }
    }

    private func start(_ message: ControlMessage, _ machine: SharedDescriptor) {
        let socket = control.socket
        guard service == nil else { return socket.reply(message.sequence, .failed, "the device is started already") }
        let service = VsockService(guestCID: message.number, queueCount: 2, control: socket, loop: control.loop) {
            socket.reportBroken($0)
        }
        do {
            try control.serve(service.backend, to: machine)
            self.service = service
            socket.reply(message.sequence)
        } catch {
            socket.reply(message.sequence, .failed, "\(error)")
        }
    }
}
