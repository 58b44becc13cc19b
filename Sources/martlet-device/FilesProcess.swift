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
    /// Serves the machine's queues; nil: the machine's own process does.
    private var backend: FilesBackend?
    private let requests = FileStatistics()

    private let procfs: SharedDescriptor
    /// What a state is called in errors.
    private static let state = "file server state"

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
            let server = try makeServer(memoryLimit, allowsDevices: allowsDevices)
            let socket = control.socket
            let device = FileDevice(tag: tag) { server.handle(readable: $0, writable: $1) }
            let backend = try FilesBackend(device: device) { socket.reportBroken($0) }
            try control.serve(backend, to: vhostUser)
            self.backend = backend
        case .startRelayedFiles(let relay, _, let memoryLimit, let allowsDevices):
            let server = try makeServer(memoryLimit, allowsDevices: allowsDevices)
            try FileRelay(area: relay.area, request: relay.request, reply: relay.reply)
                .serve { server.handle(readable: $0, writable: $1) }
        case .addShare(let name, let tree, let readOnly):
            try started().addShare(name: name, descriptor: try tree.duplicate(), readOnly: readOnly)
        case .removeShare(let name):
            try started().removeShare(name: name)
        case .saveFiles(let file):
            return try writeState(started().save(), to: file, Self.state)
        case .restoreFiles(let file):
            try started().restore(readState(file, Self.state, atMost: FileServer.maximumStateSize))
        case .statistics:
            var statistics = ProcessStatistics(operations: requests.operations)
            if let backend { statistics.add(.files, 0, backend) }
            return .statistics(statistics)
        default: throw RequestError.notServed(request)
        }
        return .done
    }

    private func makeServer(_ memoryLimit: UInt64, allowsDevices: Bool) throws -> FileServer {
        guard server == nil else { throw RequestError("the device is started already") }
        var options = FileServer.Options()
        options.memoryLimit = Int(clamping: memoryLimit)
        options.allowsDevices = allowsDevices
        options.onRequest = { [requests] in requests.note(opcode: $0, nanoseconds: $1) }
        let made = try FileServer(proc: try procfs.duplicate(), options: options)
        server = made
        return made
    }

    private func started() throws(RequestError) -> FileServer {
        guard let server else { throw RequestError("the device is not started") }
        return server
    }
}
