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
        try control.listen { [unowned self] in try handle($0, $1) }
        while !control.ended {
            try control.loop.runOnce(timeoutMilliseconds: service?.backend.timeout ?? -1)
            service?.backend.afterRound()
        }
    }

    private func handle(_ sequence: UInt64, _ request: ControlRequest<SharedDescriptor>) throws -> ControlReply? {
        switch request {
        case .startVsock(let vhostUser, let guestCID):
            try start(vhostUser, guestCID)
            return .done
        case .connect(let port, let stream, let timeout):
            guard let service else { return .notReady }
            service.connect(sequence, port: port, stream, timeout: timeout)
            return nil
        case .statistics:
            var statistics = ProcessStatistics(connections: service.map { .init($0.backend.device) })
            if let service { statistics.add(.vsock, 0, service.backend) }
            return .statistics(statistics)
        default: throw RequestError.notServed(request)
        }
    }

    private func start(_ machine: SharedDescriptor, _ guestCID: UInt64) throws {
        try control.requireUnused()
        let socket = control.socket
        let service = VsockService(guestCID: guestCID, queueCount: 2, control: socket, loop: control.loop) {
            socket.reportBroken($0)
        }
        try control.serve(service.backend, to: machine)
        self.service = service
    }
}
