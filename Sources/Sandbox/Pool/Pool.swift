import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// The servers of this host that have a machine ready and no pod: a socket for each, in a directory.
///
/// A server sends a `PoolMember` to whoever connects, then takes one message: a `PoolAssignment`, by which it leaves the pool, or an
/// empty object, by which it ends. It confirms an assignment when its descriptors are its own.
public struct Pool: Sendable {
    /// Absolute path.
    public let directory: String

    public init(directory: String) { self.directory = directory }

    // MARK: Members

    /// Those that answer. A socket where nobody listens is removed.
    public func members() -> [PoolMember] { connections().map(\.member) }

    private func connections() -> [(member: PoolMember, connection: SharedDescriptor)] {
        sockets().compactMap { try? connect($0) }
    }

    /// Paths; the members that were asked first change with each call, so that commands that ask at once find others.
    private func sockets() -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [])
            .filter { $0.hasSuffix(Self.suffix) }.shuffled().map { "\(directory)/\($0)" }
    }

    private static let suffix = ".pool"

    /// Where a server of the pool listens.
    func socket(ofProcess pid: pid_t) -> String { "\(directory)/\(pid)\(Self.suffix)" }

    private func connect(_ path: String) throws -> (PoolMember, SharedDescriptor)? {
        let connection: SharedDescriptor
        do { connection = SharedDescriptor(try UnixAddress.connect(path, type: SOCK_SEQPACKET)) } catch {
            if error.errno == .connectionRefused { unlink(path) }
            return nil
        }
        // One that has just been taken does not answer.
        setReceiveTimeout(connection.raw, .seconds(1))
        return try connection.receive(PoolMember.self).map { ($0.value, connection) }
    }

    // MARK: Taking

    /// Has a server of the pool become the program that would serve a new pod.
    ///
    /// - Parameters:
    ///   - configuration: as it was loaded.
    ///   - configurationFile: the file that it was read from; nil: the standard one.
    ///   - spec: reads the bundle of the pod's first container; nil: it has none. It is asked only where there is a pool.
    /// - Returns: nil where no server of the pool can; whoever asks starts the program then. What is wrong with the bundle or the
    ///   configuration, the program says.
    package static func take(
        _ command: ChildProcess.Command, _ configuration: Configuration, configurationFile: String?,
        spec: () -> Spec?
    ) -> Server? {
        let pool = Pool(directory: configuration.pool.directory)
        guard configuration.template.mode != .off, [.auto, .kvm].contains(configuration.hypervisor),
            !pool.sockets().isEmpty
        else { return nil }
        let spec = spec() ?? Spec()
        var configuration = configuration
        if Configuration.isChanged(by: spec.annotations) {
            guard let own = try? Configuration.load(file: configurationFile, annotations: spec.annotations) else {
                return nil
            }
            configuration = own
        }
        guard let sizing = try? Sizing(of: spec, configuration) else { return nil }
        let templates = configuration.template.directory
        let exact = try? pool.take(command) { member in
            (member.vcpus, member.memoryMiB, member.templates) == (sizing.vcpus, sizing.memoryMiB, templates)
        }
        guard exact == nil, sizing.memoryMiB <= configuration.mostMemoryMiB else { return exact }
        // A smaller machine grows.
        return try? pool.take(command) { member in
            member.vcpus <= sizing.vcpus && member.memoryMiB <= sizing.memoryMiB && member.templates == templates
        }
    }

    /// A server that was taken from the pool.
    package struct Server: Sendable {
        /// Becomes readable when the process has ended (pidfd_open(2)).
        fileprivate let pidfd: SharedDescriptor

        package func kill() { _ = martlet_pidfd_send_signal(pidfd.raw, SIGKILL) }

        /// Blocks until it ends; false after `timeout`.
        package func waitForEnd(timeout: Duration) -> Bool {
            var entry = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
            let end = ContinuousClock.now + timeout
            while true {
                let rest = (end - ContinuousClock.now) / .milliseconds(1)
                let count = poll(&entry, 1, Int32(max(0, rest)))
                if count >= 0 || errno != EINTR { return count > 0 }
            }
        }
    }

    /// Has a server of the pool become the program of `command`.
    ///
    /// - Parameters:
    ///   - command: with descriptors from 0 on; all of them are copied.
    ///   - isFitting: whether the pod's machine may be the one that a server has.
    private func take(_ command: ChildProcess.Command, where isFitting: (PoolMember) -> Bool) throws -> Server? {
        for path in sockets() {
            guard let (member, connection) = try? connect(path), member.isOfThisHost, isFitting(member)
            else { continue }
            let number = martlet_pidfd_open(member.pid, 0)
            guard number >= 0 else { continue }
            let server = Server(pidfd: SharedDescriptor(OwnedDescriptor(owning: number)))
            let null = try OwnedDescriptor.open("/dev/null", O_RDWR)
            do {
                try connection.send(
                    PoolAssignment(command), descriptors: command.descriptors.map { $0 < 0 ? null.raw : $0 })
                setReceiveTimeout(connection.raw, .seconds(10))
                guard try connection.receive(PoolMember.self) != nil else {
                    throw SandboxError.failed("process \(member.pid) of the pool has closed the connection")
                }
            } catch {
                // What it may have got of the pod must not live beside the server that takes its place.
                server.kill()
                continue
            }
            return server
        }
        return nil
    }

    /// Ends servers of the pool.
    ///
    /// - Returns: those that were told to.
    @discardableResult
    public func drain(where isToEnd: (PoolMember) -> Bool = { _ in true }) -> [PoolMember] {
        connections().filter { isToEnd($0.member) && (try? $0.connection.send([String: String]())) != nil }.map(
            \.member)
    }
}
