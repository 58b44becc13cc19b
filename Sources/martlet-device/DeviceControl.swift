import DeviceService
import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// A device process's control socket, and the machine's session on the same loop.
final class DeviceControl {
    let socket: ControlSocket
    let loop: EventLoop
    private(set) var session: Session?
    private(set) var ended = false

    init(_ socket: ControlSocket) throws(SystemError) {
        self.socket = socket
        loop = try EventLoop()
    }

    /// Calls `handle` for each request, as `ControlSocket.serve` does; the loop is to be left when `ended` is set.
    func listen(
        _ handle: @escaping (_ sequence: UInt64, ControlRequest<SharedDescriptor>) throws -> ControlReply?
    ) throws(SystemError) {
        try loop.add(socket.socket.raw, .readable) { [unowned self] _ in
            if !socket.serve(handle) { ended = true }
        }
    }

    /// Lets the machine at the other end of `descriptor` use `device`.
    func serve(_ device: any BackendDevice, to descriptor: SharedDescriptor) throws(SystemError) {
        let socket = socket
        let session = Session(socket: descriptor, device: device) { socket.reportBroken($0) }
        try loop.add(session.descriptor, .readable) { [unowned self] _ in
            do {
                if try session.receive() { return }
            } catch {
                socket.reportBroken("\(error)")
                session.close()
            }
            // The machine has closed the connection, or broke the protocol. The host learns of its end from its process.
            loop.remove(session.descriptor)
        }
        self.session = session
    }

    /// - Throws: when a machine is served already.
    func requireUnused() throws(RequestError) {
        guard session == nil else { throw RequestError("the device is started already") }
    }
}
