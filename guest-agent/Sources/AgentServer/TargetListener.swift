import AgentAPI
import AgentContract
import CLinux
import Glibc
import GuestSystem
import LinuxSystem

/// A listening stream socket in the guest that stands for a target on the host: each connection to it is carried there.
final class TargetListener: Sendable {
    private let listener: SharedDescriptor
    private let target: UInt32
    private let link: HostLink

    /// Serves `listener` until `close`.
    init(_ listener: SharedDescriptor, target: UInt32, link: HostLink) throws(SystemError) {
        (self.listener, self.target, self.link) = (listener, target, link)
        try startThread("target", stackSize: 128 << 10) { self.accept() }
    }

    /// Takes no more connections. Those there are end by themselves.
    func close() { shutdown(listener.raw, Int32(SHUT_RDWR)) }

    private func accept() {
        acceptConnections(listener) { client in
            // Without a thread the client sees the end of the connection.
            try? startThread("target client", stackSize: 128 << 10) { [target, link] in
                link.withConnection(to: target) { stream in
                    if SocketRelay.carry(local: client, machine: stream) == .descriptorPassed {
                        link.tellOfDescriptor(target)
                    }
                }
            }
        }
    }
}

/// The sockets of a container that stand for sockets of the host.
struct ForwardedSockets: Sendable {
    private struct Entry {
        var path: String
        var listener: TargetListener
    }

    private var entries: [Entry] = []

    /// Makes a socket and listens there.
    mutating func add(_ socket: AgentSocket, link: HostLink) throws(AgentFailure) {
        let path = socket.mountPoint
        try during("make socket \(path)") {
            let parts = path.split(separator: "/", omittingEmptySubsequences: false)
            guard path.hasPrefix("\(GuestPath.base)/"), !parts.contains(".."), let name = parts.last, name != "" else {
                throw AgentFailure(.invalidArgument, "not below \(GuestPath.base)")
            }
            let parent = parts.dropLast().joined(separator: "/")
            try makeDirectories(parent)
            let directory = SharedDescriptor(try OwnedDescriptor.open(parent, O_PATH | O_DIRECTORY))
            // By a descriptor: a path may be longer than a socket's address.
            let place = "\(directory.procPath)/\(name)"
            let listener = SharedDescriptor(try UnixAddress.listen(place))
            do {
                try check("chown", path, chown(place, socket.uid, socket.gid))
                try check("chmod", path, chmod(place, socket.mode & 0o7777))
                entries.append(
                    Entry(
                        path: path, listener: try TargetListener(listener, target: socket.target, link: link)))
            } catch {
                unlink(place)
                throw error
            }
        }
    }

    /// Takes all of them away.
    mutating func removeAll() {
        for entry in entries {
            entry.listener.close()
            unlink(entry.path)
            removeEmptyDirectories(above: entry.path)
        }
        entries = []
    }
}
