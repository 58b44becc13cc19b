import CAgent
import Glibc
public import LinuxSystem
import Synchronization

/// A child process of the agent.
public struct GuestProcess: Sendable {
    /// How and when a process ended.
    public struct End: Sendable {
        public var status: ExitStatus
        /// Nanoseconds since the epoch, by the guest's clock.
        public var at: Int64
    }

    /// In the guest's process id namespace.
    public let pid: pid_t
    /// A pidfd.
    public let descriptor: SharedDescriptor
    public let ended: Promise<End>
}

/// Starts the agent's children and reaps them, and every orphan of the guest.
public final class Reaper: Sendable {
    private struct Children {
        var running: [pid_t: Promise<GuestProcess.End>] = [:]
        /// How many were started that go on as another process, which is not known yet.
        var awaited = 0
        /// The ends of processes that are not known, for as long as some are awaited.
        var unknown: [pid_t: GuestProcess.End] = [:]
    }

    private let children = Mutex(Children())

    /// Signalled when a child was started, as there may have been none to wait for.
    private let started: EventDescriptor

    public init() throws(SystemError) { started = try EventDescriptor() }

    /// What `start` starts a process with.
    public struct Launch {
        /// CLONE_NEW* of namespaces that are the process's own.
        public var namespaces: UInt64 = 0
        /// With a user namespace: the content of its uid_map and gid_map. The process is that namespace's root.
        public var maps = (users: "", groups: "")
        /// A pidfd: the process starts in that process's pid namespace.
        public var pidNamespaceOf: Int32?
        /// Whether it goes on as another process: `adopt` or `awaitNoLonger` follows.
        public var goesOn = false
        /// The cgroup directory that it starts in.
        public var cgroup: Int32?
        public var executable: Int32
        public var arguments: [String]
        public var environment: [String] = []
        /// Its descriptors, from 0 on.
        public var descriptors: [Int32]

        public init(executable: Int32, arguments: [String], descriptors: [Int32]) {
            self.executable = executable
            self.arguments = arguments
            self.descriptors = descriptors
        }
    }

    /// Starts a process; its end is reported by `run()`.
    public func start(_ launch: Launch) throws(SystemError) -> GuestProcess {
        let ended = try Promise<GuestProcess.End>()
        let own = launch.pidNamespaceOf == nil ? nil : try OwnedDescriptorBox("/proc/self/ns/pid")
        return try children.withLock { children throws(SystemError) in
            // Under the lock: a child that ends at once is reaped only after it is known here.
            // A child that fails before its program is executed exits by itself and is reaped as an orphan.
            defer { started.signal() }
            let (pid, descriptor) = try Self.spawn(launch, ownPIDNamespace: own?.descriptor.raw ?? -1)
            children.running[pid] = ended
            if launch.goesOn { children.awaited += 1 }
            return GuestProcess(pid: pid, descriptor: descriptor, ended: ended)
        }
    }

    /// Takes over the process as which a started one goes on; it may have ended already.
    ///
    /// - Parameters:
    ///   - pid: in the guest's process id namespace.
    ///   - descriptor: its pidfd.
    public func adopt(_ pid: pid_t, _ descriptor: SharedDescriptor) throws(SystemError) -> GuestProcess {
        let ended = try Promise<GuestProcess.End>()
        let end = children.withLock { children in
            let end = children.unknown.removeValue(forKey: pid)
            if end == nil { children.running[pid] = ended }
            return end
        }
        awaitNoLonger()
        if let end { ended.settle(end) }
        return GuestProcess(pid: pid, descriptor: descriptor, ended: ended)
    }

    /// No process follows one that was to go on as another.
    public func awaitNoLonger() {
        children.withLock { children in
            children.awaited -= 1
            if children.awaited == 0 { children.unknown = [:] }
        }
    }

    private final class OwnedDescriptorBox {
        let descriptor: OwnedDescriptor
        init(_ path: String) throws(SystemError) { descriptor = try OwnedDescriptor.open(path, O_RDONLY) }
    }

    private static func spawn(
        _ launch: Launch, ownPIDNamespace: Int32
    ) throws(SystemError) -> (pid_t, SharedDescriptor) {
        var pid: pid_t = -1
        var descriptor: Int32 = -1
        var step: UnsafePointer<CChar>?
        let result = withCStrings(launch.arguments) { arguments in
            withCStrings(launch.environment) { environment in
                withCStrings([launch.maps.users, launch.maps.groups]) { maps in
                    launch.descriptors.withUnsafeBufferPointer { descriptors in
                        var options = martlet_agent_spawn(
                            namespaces: launch.namespaces, user_map: maps[0], group_map: maps[1],
                            pid_namespace: launch.pidNamespaceOf ?? -1, own_pid_namespace: ownPIDNamespace,
                            cgroup: launch.cgroup ?? -1, executable: launch.executable, argv: arguments,
                            envp: environment, descriptors: descriptors.baseAddress,
                            descriptor_count: Int32(descriptors.count))
                        return martlet_agent_spawn(&options, &pid, &descriptor, &step)
                    }
                }
            }
        }
        if result != 0 {
            throw SystemError(step.map { String(cString: $0) } ?? "spawn", errno: .init(rawValue: result))
        }
        return (pid, SharedDescriptor(OwnedDescriptor(owning: descriptor)))
    }

    /// Reaps children for ever; on a thread of its own.
    ///
    /// It does not wait for SIGCHLD, which a thread of the language's runtime could take. Orphans come only from children, so
    /// without any child there is nothing to wait for but a start.
    public func run() {
        while true {
            var information = siginfo_t()
            if waitid(P_ALL, 0, &information, WEXITED | WNOWAIT) == 0 {
                reapAll()
            } else if Glibc.errno == ECHILD {
                var item = pollfd(fd: started.descriptor.raw, events: Int16(POLLIN), revents: 0)
                poll(&item, 1, -1)
                started.drain()
            }
        }
    }

    private func reapAll() {
        while true {
            let end: (Promise<GuestProcess.End>?, GuestProcess.End)? = children.withLock { children in
                var status: Int32 = 0
                let pid = waitpid(-1, &status, WNOHANG)
                guard pid > 0 else { return nil }
                guard let exit = ExitStatus(waitStatus: status) else { return (nil, .init(status: .exited(0), at: 0)) }
                let end = GuestProcess.End(status: exit, at: wallClockNanoseconds())
                let known = children.running.removeValue(forKey: pid)
                if known == nil, children.awaited > 0 { children.unknown[pid] = end }
                return (known, end)
            }
            guard let end else { return }
            end.0?.settle(end.1)
        }
    }
}

/// Calls `body` with a NULL-terminated array of C strings.
public func withCStrings<R>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R
) -> R {
    var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return pointers.withUnsafeBufferPointer { buffer in
        // Never empty: it ends with NULL.
        guard let base = buffer.baseAddress else { preconditionFailure("an array with an element has an address") }
        return body(base)
    }
}
