import DeviceService
import FileService
import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a file device: control socket and machine on this thread, requests on others.
final class FilesProcess {
    private let control: DeviceControl
    private var server: FileServer?

    init(_ socket: ControlSocket) throws { control = try DeviceControl(socket) }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in handle($0, $1) }
        while !control.ended { try control.loop.runOnce(timeoutMilliseconds: -1) }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) {
        do {
            switch (message.kind, descriptors.count) {
            case (.startFiles, 2):
                try start(tag: message.text, machine: descriptors[0], proc: descriptors[1])
            case (.addShare, 1):
                try started().addShare(
                    name: message.text, descriptor: try descriptors[0].duplicate(),
                    readOnly: message.flags & ControlMessage.readOnly != 0)
            case (.removeShare, 0):
                try started().removeShare(name: message.text)
            default:
                return control.socket.refuse(message, descriptors.count)
            }
            control.socket.reply(message.sequence)
        } catch {
            control.socket.reply(message.sequence, .failed, "\(error)")
        }
    }

    private func start(tag: String, machine: SharedDescriptor, proc: SharedDescriptor) throws {
        guard server == nil else { throw Refusal(description: "the device is started already") }
        let socket = control.socket
        let server = try FileServer(proc: try proc.duplicate())
        let device = FileDevice(tag: tag) { server.handle(readable: $0, writable: $1) }
        try control.serve(try FilesBackend(device: device) { socket.reportBroken($0) }, to: machine)
        self.server = server
    }

    private func started() throws(Refusal) -> FileServer {
        guard let server else { throw Refusal(description: "the device is not started") }
        return server
    }
}

/// Why the process does not do as asked.
private struct Refusal: Error, CustomStringConvertible {
    var description: String
}
