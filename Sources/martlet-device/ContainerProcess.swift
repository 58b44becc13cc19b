import CLinux
import Glibc
import Jail
import LinuxSystem
import VMMControl

/// `martlet-device container`: a container's process on the host. It holds the container's standard streams, is in the pod's
/// network namespace and the container's cgroup, has the container's files in a mount namespace of its own, and ends as the container's first process ends. Engines take it for that process.
///
/// The other words of its command line are its title: they name the container and the pod.
struct ContainerProcess {
    private let control: SharedDescriptor
    private let signals: SharedDescriptor
    private var files = ContainerFiles()

    init(control: SharedDescriptor, signals: SharedDescriptor) { (self.control, self.signals) = (control, signals) }

    /// Ends the process by the server's word; never returns.
    static func run() throws -> Never {
        let control = SharedDescriptor(OwnedDescriptor(owning: controlDescriptor))
        let (read, write) = try SharedDescriptor.pipe()
        martlet_signal_pipe(write.raw)
        try write.setNonBlocking(true)
        for signal in 1...lastSignal where !unforwarded.contains(signal) { martlet_forward_signal(signal) }
        // A pseudo-terminal that was made for an engine: as this session's terminal it tells of its size and its end. One that a
        // person sits at belongs to another session.
        martlet_ioctl_int(STDIN_FILENO, UInt(TIOCSCTTY), 0)
        var process = ContainerProcess(control: control, signals: read)
        try process.serve()
        _ = withExtendedLifetime(write) { _exit(lost) }
    }

    /// The code of a process whose server has gone.
    private static let lost: Int32 = 255
    /// The number of the last signal (signal(7)).
    private static let lastSignal: Int32 = 64
    /// Signals that say nothing to the container: what the kernel tells this process itself, and what can't be handled.
    private static let unforwarded: Set<Int32> = [
        SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGTTIN, SIGTTOU, SIGTSTP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS,
        32, 33,
    ]

    private mutating func serve() throws {
        var items = [
            pollfd(fd: control.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: signals.raw, events: Int16(POLLIN), revents: 0),
        ]
        while true {
            if poll(&items, 2, -1) < 0 { continue }
            if items[1].revents != 0 { try forwardSignal() }
            guard items[0].revents != 0 else { continue }
            guard let (message, descriptor) = try HostProcessMessage.receive(over: control) else { return }
            switch message {
            case .mount(let path): if let descriptor { files.mounts.append((path, descriptor)) }
            case .enter(let user): try enter(descriptor, user: user)
            case .exit(let code): _exit(code)
            case .end(let signal): end(by: signal)
            default: return
            }
        }
    }

    private func forwardSignal() throws {
        var number: UInt8 = 0
        guard read(signals.raw, &number, 1) == 1 else { return }
        guard Int32(number) == SIGWINCH else {
            return try HostProcessMessage.signal(Int32(number)).send(over: control.raw)
        }
        var size = winsize()
        guard martlet_ioctl_pointer(STDIN_FILENO, UInt(TIOCGWINSZ), &size) == 0 else { return }
        try HostProcessMessage.resized(width: Int32(size.ws_col), height: Int32(size.ws_row)).send(over: control.raw)
    }

    private func enter(_ namespace: SharedDescriptor?, user: UInt32) throws {
        do throws(SystemError) {
            let entries = try ContainerFiles.processEntries()
            _ = try Jail.enter(
                JailPlan(.container, user: user), tree: files.root,
                before: { () throws(SystemError) in
                    files.place(entries)
                    if let namespace { try check("setns", "network namespace", martlet_enter_network(namespace.raw)) }
                })
        } catch {
            try HostProcessMessage.failed(errno: error.errno.rawValue).send(over: control.raw)
            throw error
        }
        try HostProcessMessage.entered.send(over: control.raw)
    }

    private func end(by number: Int32) -> Never {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
        signal(number, SIG_DFL)
        kill(getpid(), number)
        _exit(128 + number)
    }
}
