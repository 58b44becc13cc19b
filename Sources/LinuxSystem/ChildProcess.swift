import CLinux
import Glibc
import Synchronization

/// How a process ended.
public enum ProcessEnd: Sendable, Equatable, CustomStringConvertible {
    /// With an exit code, 0–255.
    case exited(Int32)
    /// By a signal.
    case signaled(Int32)

    /// The status as a shell shows it: the exit code, or 128 + n for signal n.
    public var status: Int32 {
        switch self {
        case .exited(let code): code & 0xff
        case .signaled(let signal): (128 + signal) & 0xff
        }
    }

    public var description: String {
        switch self {
        case .exited(let code): "exited with code \(code)"
        case .signaled(let signal): "was killed by signal \(signal) (\(signalName(signal)))"
        }
    }
}

/// The name of a signal, such as `SIGKILL`.
public func signalName(_ signal: Int32) -> String {
    guard let name = martlet_signal_name(signal) else { return "signal \(signal)" }
    return "SIG" + String(cString: name)
}

/// A child process. A thread of its own waits for its end.
public final class ChildProcess: Sendable {
    /// The program, its arguments and its descriptors.
    public struct Command: Sendable {
        /// Absolute path of the program.
        public var executable: String
        /// The first entry of argv, the name by which the program is called; nil: `executable`.
        public var argv0: String?
        /// The entries of argv after the first.
        public var arguments: [String]
        public var environment: [String]
        /// The child's descriptor i is a copy of `descriptors[i]`; -1 stands for /dev/null. The child inherits no others.
        public var descriptors: [Int32]
        /// The child leads a session and a process group of its own (setsid(2)); `signalGroup` needs that.
        public var newSession: Bool
        /// The child's working directory; nil: this process's own.
        public var directory: String?
        /// The child gets SIGKILL when this process ends, however it ends.
        public var diesWithParent: Bool
        /// The child is the first process of a pid namespace of its own.
        public var newPIDNamespace: Bool
        /// Whether this process waits for the child's end. A child that it does not wait for is left to whoever becomes its parent,
        /// also when it ends before this process: `ended`, `end` and `waitForEnd` know nothing of it then.
        public var isReaped: Bool

        public init(
            executable: String, argv0: String? = nil, arguments: [String], environment: [String] = [],
            descriptors: [Int32], directory: String? = nil, newSession: Bool = false, diesWithParent: Bool = false,
            newPIDNamespace: Bool = false, isReaped: Bool = true
        ) {
            self.executable = executable
            self.argv0 = argv0
            self.arguments = arguments
            self.environment = environment
            self.descriptors = descriptors
            self.directory = directory
            self.newSession = newSession
            self.diesWithParent = diesWithParent
            self.newPIDNamespace = newPIDNamespace
            self.isReaped = isReaped
        }
    }

    /// A short name for messages: `qemu`, `martlet-device files`.
    public let name: String
    public let pid: pid_t
    private let pidfd: OwnedDescriptor
    private let promise: Promise<ProcessEnd>

    /// Starts `command`.
    ///
    /// The kernel sends the parent-death signal when the *thread* that forked ends. So one thread, which lives as long as the
    /// process, forks all children.
    ///
    /// - Parameters:
    ///   - name: a short name for messages.
    /// - Throws: `SystemError` with the step that failed, from fork to exec.
    public init(_ name: String, _ command: Command) throws(SystemError) {
        let promise = try Promise<ProcessEnd>()
        let result = try Promise<Result<(pid_t, Int32), SystemError>>()
        try Forker.shared.submit { result.settle(ChildProcess.fork(command)) }
        guard let outcome = result.wait() else { throw SystemError("fork", name, errno: .canceled) }
        let (pid, pidfd) = try outcome.get()
        self.name = name
        self.pid = pid
        self.pidfd = OwnedDescriptor(owning: pidfd)
        self.promise = promise
        guard command.isReaped else { return }
        try startThread("wait \(name)", stackSize: 64 << 10) {
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
            let signal = status & 0x7f
            promise.settle(signal == 0 ? .exited((status >> 8) & 0xff) : .signaled(signal))
        }
    }

    /// In a command's descriptors: the write end of a pipe.
    public static let pipe: Int32 = -2

    /// Starts `command` with the write end of a new pipe in place of each `pipe` in its descriptors.
    ///
    /// - Returns: the child, and the read end of the pipe. Only the child has the write end, so the read end reaches its end when
    ///   the child and all processes that inherited the descriptor have ended.
    public static func withPipe(
        _ name: String, _ command: Command
    ) throws(SystemError) -> (child: ChildProcess, output: SharedDescriptor) {
        let (output, input) = try SharedDescriptor.pipe()
        var command = command
        for (index, descriptor) in command.descriptors.enumerated() where descriptor == pipe {
            command.descriptors[index] = input.raw
        }
        let child = try ChildProcess(name, command)
        return withExtendedLifetime(input) { (child, output) }
    }

    private static func fork(_ command: Command) -> Result<(pid_t, Int32), SystemError> {
        let arguments = ([command.argv0 ?? command.executable] + command.arguments).map { strdup($0) } + [nil]
        let environment = command.environment.map { strdup($0) } + [nil]
        let path = strdup(command.executable)
        let directory = command.directory.map { strdup($0) } ?? nil
        defer {
            for string in arguments { free(string) }
            for string in environment { free(string) }
            free(path)
            free(directory)
        }
        var pid: pid_t = -1
        var pidfd: Int32 = -1
        var step: UnsafePointer<CChar>?
        let error = command.descriptors.withUnsafeBufferPointer { descriptors in
            arguments.withUnsafeBufferPointer { argv in
                environment.withUnsafeBufferPointer { envp in
                    var options = martlet_spawn_options(
                        path: path, directory: directory, argv: argv.baseAddress, envp: envp.baseAddress,
                        descriptors: descriptors.baseAddress, descriptor_count: Int32(descriptors.count),
                        new_session: command.newSession ? 1 : 0,
                        parent_death_signal: command.diesWithParent ? SIGKILL : 0,
                        new_pid_namespace: command.newPIDNamespace ? 1 : 0)
                    return martlet_spawn(&options, &pid, &pidfd, &step)
                }
            }
        }
        if error != 0 {
            let step = step.map { String(cString: $0) } ?? "spawn"
            let subject = step == "chdir" ? command.directory ?? "" : command.executable
            return .failure(SystemError(step, subject, errno: .init(rawValue: error)))
        }
        return .success((pid, pidfd))
    }

    /// Sends a signal. It is not an error when the process has already ended.
    public func signal(_ signal: Int32) {
        _ = martlet_pidfd_send_signal(pidfd.raw, signal)
    }

    /// Sends a signal to every process of the group that this child was started to lead (`Command.newSession`): to the
    /// child, and to what it has started that has not left the group. The kernel keeps the group's number from being
    /// used again as long as one of them runs.
    public func signalGroup(_ signal: Int32) { _ = kill(-pid, signal) }

    /// How it ended; nil while it runs.
    public var ended: ProcessEnd? { promise.current }

    /// Suspends until the process ends.
    public func end() async -> ProcessEnd { await promise.value() }

    /// Blocks until the process ends; nil after `timeout`.
    public func waitForEnd(timeout: Duration? = nil) -> ProcessEnd? { promise.wait(timeout: timeout) }
}

/// The thread that forks all children.
private final class Forker: Sendable {
    static let shared = Forker()
    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let semaphore: Semaphore
    private let started = Mutex(false)

    private init() { semaphore = Semaphore() }

    func submit(_ job: @Sendable @escaping () -> Void) throws(SystemError) {
        try started.withLock { started throws(SystemError) in
            if !started {
                try startThread("fork") { [self] in
                    while true {
                        semaphore.wait()
                        let job = jobs.withLock { $0.isEmpty ? nil : $0.removeFirst() }
                        job?()
                    }
                }
                started = true
            }
        }
        jobs.withLock { $0.append(job) }
        semaphore.signal()
    }
}

/// A counting semaphore between threads.
private final class Semaphore: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    init() { sem_init(semaphore, 0, 0) }
    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }
    func wait() { while sem_wait(semaphore) != 0 && errno == EINTR {} }
    func signal() { sem_post(semaphore) }
}
