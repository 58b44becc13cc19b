/// A process of a container (config.md, Process).
public struct Process: Codable, Sendable, Equatable {
    /// Whether it gets a pseudo-terminal for its stdin, stdout and stderr.
    @OrEmpty public var terminal: Bool = false
    /// The terminal's first size.
    public var consoleSize: ConsoleSize?
    public var user: User
    @OrEmpty public var args: [String] = []
    /// Windows only. It is decoded so that it can be refused by name.
    @OrEmpty public var commandLine: String = ""
    /// `NAME=value` each.
    @OrEmpty public var env: [String] = []
    /// Absolute path in the container.
    public var cwd: String
    public var capabilities: Capabilities?
    @OrEmpty public var rlimits: [Rlimit] = []
    @OrEmpty public var noNewPrivileges: Bool = false
    @OrEmpty public var apparmorProfile: String = ""
    /// -1000 to 1000.
    public var oomScoreAdj: Int?
    public var scheduler: Scheduler?
    @OrEmpty public var selinuxLabel: String = ""
    public var ioPriority: IOPriority?
    public var execCPUAffinity: CPUAffinity?

    public init(
        terminal: Bool = false, user: User = User(), args: [String], env: [String] = [], cwd: String = "/",
        capabilities: Capabilities? = nil, rlimits: [Rlimit] = [], noNewPrivileges: Bool = false
    ) {
        self.terminal = terminal
        self.user = user
        self.args = args
        self.env = env
        self.cwd = cwd
        self.capabilities = capabilities
        self.rlimits = rlimits
        self.noNewPrivileges = noNewPrivileges
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        _terminal = try container.decode(OrEmpty<Bool>.self, forKey: .terminal)
        consoleSize = try container.decodeIfPresent(ConsoleSize.self, forKey: .consoleSize)
        // A process without a user runs as root, as with other runtimes.
        user = try container.decodeIfPresent(User.self, forKey: .user) ?? User()
        _args = try container.decode(OrEmpty<[String]>.self, forKey: .args)
        _commandLine = try container.decode(OrEmpty<String>.self, forKey: .commandLine)
        _env = try container.decode(OrEmpty<[String]>.self, forKey: .env)
        cwd = try container.decodeIfPresent(String.self, forKey: .cwd) ?? ""
        capabilities = try container.decodeIfPresent(Capabilities.self, forKey: .capabilities)
        _rlimits = try container.decode(OrEmpty<[Rlimit]>.self, forKey: .rlimits)
        _noNewPrivileges = try container.decode(OrEmpty<Bool>.self, forKey: .noNewPrivileges)
        _apparmorProfile = try container.decode(OrEmpty<String>.self, forKey: .apparmorProfile)
        oomScoreAdj = try container.decodeIfPresent(Int.self, forKey: .oomScoreAdj)
        scheduler = try container.decodeIfPresent(Scheduler.self, forKey: .scheduler)
        _selinuxLabel = try container.decode(OrEmpty<String>.self, forKey: .selinuxLabel)
        ioPriority = try container.decodeIfPresent(IOPriority.self, forKey: .ioPriority)
        execCPUAffinity = try container.decodeIfPresent(CPUAffinity.self, forKey: .execCPUAffinity)
    }
}

/// The size of a terminal, in characters.
public struct ConsoleSize: Codable, Sendable, Equatable {
    public var height: UInt
    public var width: UInt

    public init(height: UInt, width: UInt) {
        self.height = height
        self.width = width
    }
}

/// The user of a process (config.md, POSIX-platform User).
public struct User: Codable, Sendable, Equatable {
    public var uid: UInt32
    public var gid: UInt32
    /// Absent: the runtime's default, 0022.
    public var umask: UInt32?
    @OrEmpty public var additionalGids: [UInt32] = []
    /// By the specification Windows only. If it is set, Martlet looks it up in the container's /etc/passwd.
    @OrEmpty public var username: String = ""

    public init(uid: UInt32 = 0, gid: UInt32 = 0, umask: UInt32? = nil, additionalGids: [UInt32] = []) {
        self.uid = uid
        self.gid = gid
        self.umask = umask
        self.additionalGids = additionalGids
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        uid = try container.decodeIfPresent(UInt32.self, forKey: .uid) ?? 0
        gid = try container.decodeIfPresent(UInt32.self, forKey: .gid) ?? 0
        umask = try container.decodeIfPresent(UInt32.self, forKey: .umask)
        _additionalGids = try container.decode(OrEmpty<[UInt32]>.self, forKey: .additionalGids)
        _username = try container.decode(OrEmpty<String>.self, forKey: .username)
    }
}

/// The five capability sets, by name (`CAP_CHOWN`).
public struct Capabilities: Codable, Sendable, Equatable {
    @OrEmpty public var bounding: [String] = []
    @OrEmpty public var effective: [String] = []
    @OrEmpty public var inheritable: [String] = []
    @OrEmpty public var permitted: [String] = []
    @OrEmpty public var ambient: [String] = []

    public init(
        bounding: [String] = [], effective: [String] = [], inheritable: [String] = [], permitted: [String] = [],
        ambient: [String] = []
    ) {
        self.bounding = bounding
        self.effective = effective
        self.inheritable = inheritable
        self.permitted = permitted
        self.ambient = ambient
    }
}

/// A resource limit (`RLIMIT_NOFILE`), setrlimit(2).
public struct Rlimit: Codable, Sendable, Equatable {
    public var type: String
    public var hard: UInt64
    public var soft: UInt64

    public init(type: String, hard: UInt64, soft: UInt64) {
        self.type = type
        self.hard = hard
        self.soft = soft
    }
}

/// sched_setattr(2) for the process.
public struct Scheduler: Codable, Sendable, Equatable {
    /// `SCHED_OTHER` and its like.
    public var policy: String
    public var nice: Int32?
    public var priority: Int32?
    @OrEmpty public var flags: [String] = []
    /// Nanoseconds.
    public var runtime: UInt64?
    /// Nanoseconds.
    public var deadline: UInt64?
    /// Nanoseconds.
    public var period: UInt64?

    public init(policy: String) { self.policy = policy }
}

/// ioprio_set(2) for the process.
public struct IOPriority: Codable, Sendable, Equatable {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE`, `IOPRIO_CLASS_IDLE`.
    public var `class`: String
    /// The specification requires it; runc takes a missing one for 0, which its users rely on.
    public var priority: Int

    public init(class name: String, priority: Int) {
        self.class = name
        self.priority = priority
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.class = try container.decode(String.self, forKey: .class)
        priority = try container.decodeIfPresent(Int.self, forKey: .priority) ?? 0
    }
}

/// The CPUs to which an exec is bound, as lists (`0-3,7`).
public struct CPUAffinity: Codable, Sendable, Equatable {
    @OrEmpty public var initial: String = ""
    @OrEmpty public var final: String = ""

    public init() {}
}
