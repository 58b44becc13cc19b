import DeviceService
import FileService
import Jail
import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a file device: control socket and machine on this thread, requests on others.
final class FilesProcess {
    private let control: DeviceControl
    private var server: FileServer?

    private let procfs: SharedDescriptor

    init(_ socket: ControlSocket, _ contents: Jail.Contents) throws {
        guard let procfs = contents.procfs else { throw RequestError("the jail has no procfs") }
        self.procfs = procfs
        control = try DeviceControl(socket)
    }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in try handle($1) }
        while !control.ended { try control.loop.runOnce(timeoutMilliseconds: -1) }
    }

    private func handle(_ request: ControlRequest<SharedDescriptor>) throws -> ControlReply {
        switch request {
        case .startFiles(let vhostUser, let tag, let memoryLimit, let allowsDevices):
            var options = FileServer.Options()
            options.memoryLimit = Int(clamping: memoryLimit)
            options.allowsDevices = allowsDevices
            try start(tag: tag, machine: vhostUser, options)
        case .addShare(let name, let tree, let readOnly):
            try started().addShare(name: name, descriptor: try tree.duplicate(), readOnly: readOnly)
        case .removeShare(let name):
            try started().removeShare(name: name)
        default: throw RequestError.notServed(request)
        }
        return .done
    }

    private func start(
        tag: String, machine: SharedDescriptor, _ options: FileServer.Options
    ) throws {
        try control.requireUnused()
        let socket = control.socket
        let server = try FileServer(proc: try procfs.duplicate(), options: options)
        let device = FileDevice(tag: tag) { server.handle(readable: $0, writable: $1) }
        try control.serve(try FilesBackend(device: device) { socket.reportBroken($0) }, to: machine)
        self.server = server
    }

    private func started() throws(RequestError) -> FileServer {
        guard let server else { throw RequestError("the device is not started") }
        return server
    }
}
