#if Libvirt
    import CLinux
    import Glibc
    import LinuxSystem
    import Synchronization

    /// Where the QEMU of libvirt connects to a machine's device processes: a directory that only its user can enter.
    ///
    /// The directory is locked as long as its pod's server lives: what a server has left that was killed, the next one removes.
    final class LibvirtSockets: Sendable {
        private static let parent = "/run/martlet-libvirt"

        private let directory: String
        private let user: UInt32
        private let lock: SharedDescriptor

        /// - Parameter user: whom QEMU runs as.
        init(user: UInt32) throws {
            if mkdir(Self.parent, 0o711) != 0 && errno != EEXIST { throw SystemError.last("mkdir", Self.parent) }
            // Whatever the umask is.
            try check("chmod", Self.parent, chmod(Self.parent, 0o711))
            let parent = try OwnedDescriptor.open(Self.parent, O_RDONLY | O_DIRECTORY)
            // A directory that is not locked yet is not swept.
            try check("flock", Self.parent, flock(parent.raw, LOCK_EX))
            Self.sweep()
            var template = Array("\(Self.parent)/XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw SystemError.last("mkdtemp", Self.parent) }
            directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            self.user = user
            lock = SharedDescriptor(try OwnedDescriptor.open(directory, O_RDONLY | O_DIRECTORY))
            try check("flock", directory, flock(lock.raw, LOCK_EX))
            try check("chown", directory, chown(directory, user, gid_t.max))
        }

        private static func sweep() {
            for name in (try? directoryNames(parent)) ?? [] {
                let path = "\(parent)/\(name)"
                guard let left = try? OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
                    flock(left.raw, LOCK_EX | LOCK_NB) == 0
                else { continue }
                remove(path)
            }
        }

        private static func remove(_ directory: String) {
            for name in (try? directoryNames(directory)) ?? [] { unlink("\(directory)/\(name)") }
            rmdir(directory)
        }

        /// Removes the directory with all sockets.
        func remove() { Self.remove(directory) }

        func path(_ name: String) -> String { "\(directory)/\(name)" }

        /// A socket that listens for QEMU.
        func listen(_ name: String) throws -> SharedDescriptor {
            let path = path(name)
            let listener = SharedDescriptor(try UnixAddress.listen(path))
            try check("chown", path, chown(path, user, gid_t.max))
            return listener
        }
    }

    /// A socket at which QEMU connects once.
    final class LibvirtChannel: Sendable {
        private let listener: SharedDescriptor
        private let path: String
        private let served: Promise<Result<Int32, any Error>>

        /// Listens, and has `serve` take the connection, on a thread of its own.
        ///
        /// - Parameter serve: starts what serves the device at the other end.
        init(
            _ name: String, _ sockets: LibvirtSockets, serve: @Sendable @escaping (SharedDescriptor) throws -> Void
        ) throws {
            path = sockets.path(name)
            listener = try sockets.listen(name)
            served = try Promise()
            try startThread("libvirt \(name)") { [listener, served] in
                acceptConnections(listener) { connection in
                    shutdown(listener.raw, Int32(SHUT_RDWR))
                    served.settle(
                        Result {
                            try serve(connection)
                            return Self.peer(of: connection)
                        })
                }
            }
        }

        /// Listens no more. Where there is a failure to serve, it is the first cause of QEMU's.
        ///
        /// - Returns: the process that has connected; 0: this process can't see it; nil: none has.
        func close() throws -> Int32? {
            shutdown(listener.raw, Int32(SHUT_RDWR))
            unlink(path)
            return try served.current?.get()
        }

        /// The process that has connected (unix(7), SO_PEERCRED).
        private static func peer(of connection: SharedDescriptor) -> Int32 {
            var credentials: (pid: Int32, user: UInt32, group: UInt32) = (0, 0, 0)
            var length = socklen_t(MemoryLayout.size(ofValue: credentials))
            getsockopt(connection.raw, SOL_SOCKET, SO_PEERCRED, &credentials, &length)
            return credentials.pid
        }
    }
#endif
