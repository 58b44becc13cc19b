import LinuxSystem

@testable import VhostUser
@testable import Virtio

/// A back end's session on a loop of its own thread, until the front end hangs up.
func serveSession(
    _ socket: SharedDescriptor, _ make: @Sendable @escaping (EventLoop) throws -> any BackendDevice
) throws -> Promise<String> {
    let done = try Promise<String>()
    try startThread("session", stackSize: 1 << 20) {
        do {
            let loop = try EventLoop()
            let device = try make(loop)
            let session = Session(socket: socket, device: device) { done.settle($0) }
            var open = true
            try loop.add(session.descriptor, .readable) { _ in
                do { open = try session.receive() } catch {
                    done.settle("\(error)")
                    open = false
                }
            }
            while open {
                try loop.runOnce(timeoutMilliseconds: (device as? VsockBackend)?.timeout ?? -1)
                (device as? VsockBackend)?.afterRound()
            }
            loop.remove(session.descriptor)
            session.close()
            done.settle("closed")
        } catch {
            done.settle("\(error)")
        }
    }
    return done
}
