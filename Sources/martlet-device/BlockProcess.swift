import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a disk: control socket and machine on this thread, requests on another.
final class BlockProcess {
    private let control: DeviceControl

    init(_ socket: ControlSocket) throws { control = try DeviceControl(socket) }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in handle($0, $1) }
        while !control.ended { try control.loop.runOnce(timeoutMilliseconds: -1) }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) {
        let socket = control.socket
        guard message.kind == .startBlock, descriptors.count == 2 else {
            return socket.refuse(message, descriptors.count)
        }
        guard !control.isServing else {
            return socket.reply(message.sequence, .failed, "the device is started already")
        }
        do {
            let backend = try BlockBackend(
                file: descriptors[1], readOnly: message.flags & ControlMessage.readOnly != 0, id: message.text
            ) { socket.reportBroken($0) }
            try control.serve(backend, to: descriptors[0])
            socket.reply(message.sequence)
        } catch {
            socket.reply(message.sequence, .failed, "\(error)")
        }
    }
}
