import Glibc
import LinuxSystem
import Logging
import OCISpec

/// How a container's process ended.
public struct ExitRecord: Sendable, Equatable {
    /// 0–255; 255 when the VM ended under it.
    public var status: UInt32
    /// Nanoseconds since the epoch.
    public var at: Int64
    /// The signal that ended it; 0: it exited.
    public var signal: UInt32

    public init(status: UInt32, at: Int64, signal: UInt32 = 0) {
        self.status = status
        self.at = at
        self.signal = signal
    }

    /// Of a process that the host has given up: as of one that SIGKILL has ended.
    static var killed: ExitRecord {
        ExitRecord(status: 128 + UInt32(SIGKILL), at: wallClockNanoseconds(), signal: UInt32(SIGKILL))
    }

    /// The same as wait(2) reports it.
    var end: ProcessEnd {
        signal == 0 ? .exited(Int32(status)) : .signaled(Int32(signal))
    }
}

/// Where an engine wants a process's streams: what `EngineStreams` opens. Empty: none.
public struct StreamNames: Sendable, Equatable {
    public var stdin: String
    public var stdout: String
    /// Not used with a terminal, whose output is all on `stdout`.
    public var stderr: String

    public init(stdin: String = "", stdout: String = "", stderr: String = "") {
        (self.stdin, self.stdout, self.stderr) = (stdin, stdout, stderr)
    }
}

/// Where a process's streams come from.
package enum StreamSource: Sendable {
    case named(StreamNames)
    /// Descriptors, with the process on the host that holds them.
    case handed(HandedProcess)

    /// Empty for descriptors.
    var names: StreamNames { if case .named(let names) = self { names } else { StreamNames() } }

    /// Whether the process's terminal is to leave line feeds as they are.
    var keepsLineFeeds: Bool { if case .handed(let handed) = self { handed.keepsLineFeeds } else { false } }

    /// The process on the host that came along.
    var process: HostProcess? { if case .handed(let handed) = self { handed.process } else { nil } }
}

/// A process of a container, its first one or a further one, as the pod's server knows it.
struct ContainerProcess: Sendable {
    enum Phase: Sendable, Equatable {
        case created
        case running
        /// Of a first process: the whole container is.
        case paused
        case stopped(ExitRecord)

        /// For messages.
        var name: String {
            switch self {
            case .created: "created"
            case .running: "running"
            case .paused: "paused"
            case .stopped: "stopped"
            }
        }

        var isStopped: Bool { if case .stopped = self { true } else { false } }

        /// Whether there is a process that has begun and not ended.
        var isAlive: Bool { self == .running || self == .paused }
    }

    let terminal: Bool
    let names: StreamNames
    /// The process on the host that stands for it; nil of an exec that its engine asked for by the Task service: the container's
    /// stands for it.
    let host: HostProcess?
    /// What an exec will execute; nil of a first process, whose container's specification says it.
    let process: Process?
    /// Of an exec: the cgroup below the container's that it starts in; empty: the container's.
    let cgroup: String
    /// What `Pod.openStreams` opens; nil afterwards.
    var source: StreamSource?
    /// Of an exec: from its start on.
    var streams: ProcessStreams?
    let exit: Promise<ExitRecord>
    /// SIGKILL was asked for.
    var isKilled = false
    var phase = Phase.created

    init(
        terminal: Bool, source: StreamSource, host: HostProcess?, process: Process? = nil, cgroup: String = ""
    ) throws {
        self.terminal = terminal
        self.source = source
        names = source.names
        self.host = host
        self.process = process
        self.cgroup = cgroup
        exit = try Promise()
    }
}

/// A container of the pod, as the pod's server knows it.
struct Container: Sendable {
    let id: String
    let bundle: String
    let plan: SandboxPlan.Container
    let hooks: HostHooks
    let cgroup: ContainerCgroup
    var first: ContainerProcess
    /// As its engine has changed them.
    var limits: ContainerLimits
    /// Its processes go on when it is started; else its program begins.
    var isRestored = false
    var execs: [String: ContainerProcess] = [:]
    /// Settled when a start of the first process is over, well or not; nil before one begins.
    var start: Promise<Void>?

    /// The process on the host that engines take for a process of the container.
    ///
    /// - Parameter exec: an exec's id; empty: the first one's.
    func pid(_ exec: String = "") -> UInt32 {
        UInt32(bitPattern: (self[exec]?.host ?? first.host)?.pid ?? 0)
    }

    /// The first one and the others.
    var processes: [ContainerProcess] { [first] + execs.values }

    /// The process of that id; the first one's is empty.
    subscript(exec: String) -> ContainerProcess? {
        get { exec.isEmpty ? first : execs[exec] }
        set {
            if !exec.isEmpty { execs[exec] = newValue } else if let newValue { first = newValue }
        }
    }

    /// CRI-O hears of no events: when a container has ended it looks for this file in its bundle.
    func noteOutOfMemory(_ logger: Logger) {
        guard plan.spec.annotations["io.container.manager"] == "cri-o" else { return }
        do throws(SystemError) { _ = try OwnedDescriptor.open("\(bundle)/oom", O_WRONLY | O_CREAT, mode: 0o644) } catch
        {
            logger.error("container \(id): CRI-O is not told that it was out of memory: \(error)")
        }
    }
}

/// What happens to a pod's containers, in the order in which engines expect to hear of it.
public enum PodEvent: Sendable, Equatable {
    case created(container: String, bundle: String, streams: StreamNames, terminal: Bool, pid: UInt32)
    case started(container: String, pid: UInt32)
    case execAdded(container: String, exec: String)
    case execStarted(container: String, exec: String, pid: UInt32)
    /// `exec` is empty for the first process.
    case exited(container: String, exec: String, pid: UInt32, ExitRecord)
    case deleted(container: String, pid: UInt32, ExitRecord)
    case paused(container: String)
    case resumed(container: String)
    case outOfMemory(container: String)
}
