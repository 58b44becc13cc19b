import CLinux
import Glibc
import LinuxSystem
import OCISpec

extension SandboxPlan {
    /// A Unix socket of the host that a container mounts: it gets one of its own, and each connection is carried to the host's.
    public struct ForwardedSocket: Sendable, Equatable, Codable {
        /// Absolute path on the host, connected to at each connection.
        public var source: String
        /// Permissions and owner of the host's socket.
        public var mode: UInt32
        public var uid: UInt32
        public var gid: UInt32
        /// Where the agent makes the container's socket in the guest.
        public var mountPoint: String
    }
}

extension SandboxPlan.ForwardedSocket {
    /// Plans the forwarding of a mount's source.
    ///
    /// - Parameters:
    ///   - field: the property of config.json, for messages.
    ///   - isAllowed: `sockets.forward` of the configuration.
    /// - Returns: nil for a source that is no socket.
    /// - Throws: `SandboxError.unsupported` for a socket whose connections can't be carried, or may not be.
    static func planned(
        source: String, field: String, mountPoint: String, isAllowed: Bool
    ) throws -> SandboxPlan.ForwardedSocket? {
        var facts = stat()
        // What is wrong with another source is told by who plans that.
        guard stat(source, &facts) == 0, facts.st_mode & S_IFMT == S_IFSOCK, let resolved = realpath(source, nil) else {
            return nil
        }
        defer { free(resolved) }
        guard isAllowed else {
            throw SandboxError.unsupported(
                "\(field): \(source): a bind mount of a socket of the host (sockets.forward is false)")
        }
        if let type = HostSocket.otherType(source) {
            throw SandboxError.unsupported("\(field): \(source): a \(type) socket: only stream sockets are forwarded")
        }
        return .init(
            source: String(cString: resolved), mode: facts.st_mode & 0o7777, uid: facts.st_uid, gid: facts.st_gid,
            mountPoint: mountPoint)
    }
}

extension SandboxPlan.ForwardedSocket {
    /// Plans a mount of the type `uds`: `source` is a socket of the host, `destination` its place in the container, and there are no
    /// options (docs/socket-forwarding.md of containerd/nerdbox).
    ///
    /// - Parameters:
    ///   - name: the mount's property of config.json, for messages.
    ///   - isAllowed: `sockets.forward` of the configuration.
    /// - Throws: `SandboxError.invalid` for options and for a source that is no socket; as `planned(source:…)` too.
    static func planned(
        _ mount: Mount, _ name: String, _ bundle: Bundle, _ mountPoint: String, isAllowed: Bool
    ) throws -> SandboxPlan.ForwardedSocket {
        if let option = mount.options.first {
            throw SandboxError.invalid(
                "\(name).options (\(mount.destination)): \(option): a mount of type uds has none")
        }
        let field = "\(name).source (\(mount.destination))"
        let source = bundle.absolute(mount.source)
        let socket = try planned(source: source, field: field, mountPoint: mountPoint, isAllowed: isAllowed)
        if let socket { return socket }
        // Says what is wrong with a path that leads nowhere.
        let (path, _) = try SandboxPlan.Container.resolve(source, field)
        throw SandboxError.invalid("\(field): \(path) is not a socket")
    }
}

extension Mount {
    /// Whether it is a socket of the host by its type.
    var isForwardedSocket: Bool { type == "uds" && !isBind }
}

/// A Unix socket of the host, by its path.
enum HostSocket {
    /// Connects to the server that listens there now.
    ///
    /// - Parameter limit: how long the server may take.
    static func connect(_ path: String, within limit: Duration) throws(SystemError) -> SharedDescriptor {
        let socket = SharedDescriptor(try make(SOCK_STREAM, path))
        setSendTimeout(socket.raw, limit)
        try connect(socket, path)
        return socket
    }

    /// The type of a socket that is no stream socket: `datagram` or `seqpacket`. nil for a stream socket, and where nobody has
    /// bound it, as far as that can be told without a connection that its server would see.
    static func otherType(_ path: String) -> String? {
        // The kernel compares the types first (unix_find_other): a stream socket's server learns nothing of this.
        for (type, name) in [(SOCK_DGRAM, "datagram"), (SOCK_SEQPACKET, "seqpacket")] {
            guard let socket = try? SharedDescriptor(make(type, path)) else { continue }
            try? socket.setNonBlocking(true)
            do throws(SystemError) {
                try connect(socket, path)
                return name
            } catch {
                // As many wait already as its server lets wait.
                if error.errno == .resourceTemporarilyUnavailable { return name }
            }
        }
        return nil
    }

    private static func make(_ type: __socket_type, _ path: String) throws(SystemError) -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try check("socket", path, socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)))
    }

    /// By a descriptor: a path may be longer than a socket's address.
    private static func connect(_ socket: SharedDescriptor, _ path: String) throws(SystemError) {
        let file = SharedDescriptor(try OwnedDescriptor.open(path, martlet_O_PATH))
        try UnixAddress(file.procPath).with { address, length throws(SystemError) in
            _ = try retrying("connect", path) { Glibc.connect(socket.raw, address, length) }
        }
    }
}
