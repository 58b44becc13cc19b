import GuestSystem
public import OCISpec

/// All that a process of a container is given before its program is executed, as numbers the kernel takes.
public struct ProcessPlan: Codable, Sendable, Equatable {
    public struct Limit: Codable, Sendable, Equatable {
        /// RLIMIT_*.
        public var resource: Int32
        public var soft: UInt64
        public var hard: UInt64

        public init(resource: Int32, soft: UInt64, hard: UInt64) {
            self.resource = resource
            self.soft = soft
            self.hard = hard
        }
    }

    /// Capability sets, bit n for capability n (capabilities(7)).
    public struct CapabilitySets: Codable, Sendable, Equatable {
        public var bounding: UInt64 = 0
        public var effective: UInt64 = 0
        public var permitted: UInt64 = 0
        public var inheritable: UInt64 = 0
        public var ambient: UInt64 = 0
    }

    public struct Window: Codable, Sendable, Equatable {
        public var rows: UInt16
        public var columns: UInt16

        public init(rows: UInt16, columns: UInt16) {
            self.rows = rows
            self.columns = columns
        }
    }

    public var arguments: [String]
    public var environment: [String]
    public var workingDirectory: String
    public var uid: UInt32
    public var gid: UInt32
    public var groups: [UInt32]
    /// Looked up in the container's passwd when not empty; wins over `uid` and `gid`.
    public var userName: String
    public var umask: UInt32
    public var capabilities: CapabilitySets
    public var limits: [Limit]
    public var noNewPrivileges: Bool
    public var terminal: Bool
    public var window: Window?
    /// Whether the terminal leaves line feeds as they are.
    public var keepsLineFeeds = false
    public var oomScoreAdjustment: Int
    public var scheduling: SchedulingPlan
    /// The container's; nil: none.
    public var seccomp: SeccompFilter?
    /// personality(2), the container's; nil: inherited.
    public var personality: UInt?

    /// Throws when a value can't be; names the field.
    public init(_ process: Process) throws(AgentFailure) {
        let problems = process.problems()
        if !problems.isEmpty {
            let list = problems.map(\.description).joined(separator: "; ")
            throw AgentFailure(.invalidArgument, list)
        }
        arguments = process.args
        environment = Self.environment(process.env)
        workingDirectory = process.cwd
        uid = process.user.uid
        gid = process.user.gid
        groups = process.user.additionalGids
        userName = process.user.username
        umask = process.user.umask ?? 0o022
        capabilities = Self.sets(process.capabilities ?? Capabilities())
        limits = process.rlimits.compactMap { limit in
            Rlimit.names.firstIndex(of: limit.type).map {
                Limit(resource: Int32($0), soft: limit.soft, hard: limit.hard)
            }
        }
        noNewPrivileges = process.noNewPrivileges
        terminal = process.terminal
        window = process.consoleSize.map {
            Window(rows: UInt16(clamping: $0.height), columns: UInt16(clamping: $0.width))
        }
        oomScoreAdjustment = process.oomScoreAdj ?? 0
        scheduling = try SchedulingPlan(process)
    }

    /// Takes over what the container's specification sets for all of its processes.
    public mutating func inherit(from first: ProcessPlan) {
        seccomp = first.seccomp
        personality = first.personality
        if scheduling.initialProcessors.isEmpty, scheduling.finalProcessors.isEmpty {
            scheduling.initialProcessors = first.scheduling.initialProcessors
            scheduling.finalProcessors = first.scheduling.finalProcessors
        }
    }

    /// Of several values of a variable the last one counts, as with runc; most programs would see the first.
    private static func environment(_ entries: [String]) -> [String] {
        var names: Set<[UInt8]> = []
        // By bytes: a character can be "=" and more.
        return entries.reversed().filter { names.insert(Array($0.utf8.prefix { $0 != UInt8(ascii: "=") })).inserted }
            .reversed()
    }

    private static func sets(_ capabilities: Capabilities) -> CapabilitySets {
        CapabilitySets(
            bounding: mask(capabilities.bounding), effective: mask(capabilities.effective),
            permitted: mask(capabilities.permitted), inheritable: mask(capabilities.inheritable),
            ambient: mask(capabilities.ambient))
    }

    /// Names that are not capabilities are passed over; the host has warned of them.
    static func mask(_ names: [String]) -> UInt64 {
        names.reduce(0) { mask, name in
            Capabilities.names.firstIndex(of: name).map { mask | 1 << UInt64($0) } ?? mask
        }
    }
}
