import CLinux
import Glibc

/// Takes the connections that come to a listening socket, until that is shut down. Blocks. Where descriptors or memory run short it
/// waits until there are some again.
///
/// - Parameter take: gets each connection, close-on-exec; the next one waits for its return.
public func acceptConnections(_ listener: SharedDescriptor, _ take: (SharedDescriptor) -> Void) {
    while true {
        let raw = martlet_accept(listener.raw)
        if raw >= 0 {
            take(SharedDescriptor(OwnedDescriptor(owning: raw)))
            continue
        }
        if [EINTR, ECONNABORTED].contains(errno) { continue }
        guard [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(errno) else { return }
        usleep(100_000)
    }
}
