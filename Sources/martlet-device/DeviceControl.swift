import DeviceService
import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// A device process's word with the host, and the machine's session on the same loop.
final class DeviceControl {
    let socket: ControlSocket
    let loop: EventLoop
    private(set) var session: Session?
    private(set) var ended = false

    init(_ socket: ControlSocket) throws(SystemError) {
        self.socket = socket
        loop = try EventLoop()
    }

    /// Calls `handle` for each request; the loop is to be left when `ended` is set.
    func listen(_ handle: @escaping (ControlMessage, [SharedDescriptor]) -> Void) throws(SystemError) {
        try loop.add(socket.socket.raw, .readable) { [unowned self] _ in
            do {
                guard let (message, descriptors) = try socket.receive() else {
                    ended = true
                    return
                }
                handle(message, descriptors)
            } catch {
                logError("\(error)")
                ended = true
            }
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
            // The machine is gone, or is not to be spoken with any more. The host learns of its end from its process.
            loop.remove(session.descriptor)
        }
        self.session = session
    }

    /// Whether a machine is served already.
    var isServing: Bool { session != nil }
}
