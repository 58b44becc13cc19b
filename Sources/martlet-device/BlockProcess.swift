import DeviceService
import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a disk: control socket and machine on this thread, requests on others.
final class BlockProcess {
    private let control: DeviceControl
    private let rings: RingPool
    private var backend: BlockBackend?

    /// The rings of a process of this kind, made before it enters its jail.
    static func makeRings() -> RingPool { RingPool(count: BlockBackend.maximumQueues, isShared: false) }

    init(_ socket: ControlSocket, _ rings: RingPool) throws {
        control = try DeviceControl(socket)
        self.rings = rings
    }

    /// Returns when the control socket is closed.
    func run() throws {
        try control.listen { [unowned self] in try handle($1) }
        while !control.ended { try control.loop.runOnce(timeoutMilliseconds: -1) }
    }

    private func handle(_ request: ControlRequest<SharedDescriptor>) throws -> ControlReply {
        if case .statistics = request {
            var statistics = ProcessStatistics()
            if let backend { statistics.add(.block, 0, backend) }
            return .statistics(statistics)
        }
        guard case .startBlock(let vhostUser, let files, let readOnly, let id, let queues) = request else {
            throw RequestError.notServed(request)
        }
        try control.requireUnused()
        let socket = control.socket
        let backend = try BlockBackend(
            BlockSource(files), readOnly: readOnly, id: id, queues: Int(queues), rings: rings
        ) { socket.reportBroken($0) }
        try control.serve(backend, to: vhostUser)
        self.backend = backend
        return .disk(backend)
    }
}
