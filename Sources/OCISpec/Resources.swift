extension Linux {
    /// Limits by cgroups (config-linux.md, Control groups).
    public struct Resources: Codable, Sendable, Equatable {
        @OrEmpty public var devices: [DeviceRule] = []
        public var memory: Memory?
        public var cpu: CPU?
        public var pids: Pids?
        public var blockIO: BlockIO?
        @OrEmpty public var hugepageLimits: [HugepageLimit] = []
        public var network: Network?
        /// By device name.
        @OrEmpty public var rdma: [String: Rdma] = [:]
        /// Values for files of cgroup v2, by file name.
        @OrEmpty public var unified: [String: String] = [:]

        public init() {}
    }
}

extension Linux.Resources {
    /// A rule that allows or denies devices. Rules apply in order.
    public struct DeviceRule: Codable, Sendable, Equatable {
        public var allow: Bool
        /// `a`, `c` or `b`; empty: all.
        @OrEmpty public var type: String = ""
        /// Absent: any.
        public var major: Int64?
        /// Absent: any.
        public var minor: Int64?
        /// Of `r`, `w`, `m`.
        @OrEmpty public var access: String = ""

        public init(allow: Bool, access: String) {
            self.allow = allow
            self.access = access
        }
    }

    /// Bytes; -1: no limit.
    public struct Memory: Codable, Sendable, Equatable {
        public var limit: Int64?
        public var reservation: Int64?
        /// Memory and swap together.
        public var swap: Int64?
        public var kernel: Int64?
        public var kernelTCP: Int64?
        /// 0 to 100.
        public var swappiness: UInt64?
        public var disableOOMKiller: Bool?
        public var useHierarchy: Bool?
        public var checkBeforeUpdate: Bool?

        public init() {}
    }

    public struct CPU: Codable, Sendable, Equatable {
        /// Relative weight; 1024 is one share.
        public var shares: UInt64?
        /// Microseconds in a period; -1: no limit.
        public var quota: Int64?
        /// Microseconds.
        public var burst: UInt64?
        /// Microseconds.
        public var period: UInt64?
        /// Microseconds.
        public var realtimeRuntime: Int64?
        /// Microseconds.
        public var realtimePeriod: UInt64?
        /// A list such as `0-3,7`.
        @OrEmpty public var cpus: String = ""
        @OrEmpty public var mems: String = ""
        public var idle: Int64?

        public init() {}
    }

    public struct Pids: Codable, Sendable, Equatable {
        /// 0 or less: no limit.
        public var limit: Int64?

        public init(limit: Int64) { self.limit = limit }
    }

    public struct BlockIO: Codable, Sendable, Equatable {
        public var weight: UInt16?
        public var leafWeight: UInt16?
        @OrEmpty public var weightDevice: [WeightDevice] = []
        @OrEmpty public var throttleReadBpsDevice: [ThrottleDevice] = []
        @OrEmpty public var throttleWriteBpsDevice: [ThrottleDevice] = []
        @OrEmpty public var throttleReadIOPSDevice: [ThrottleDevice] = []
        @OrEmpty public var throttleWriteIOPSDevice: [ThrottleDevice] = []

        public init() {}

        public struct WeightDevice: Codable, Sendable, Equatable {
            public var major: Int64
            public var minor: Int64
            public var weight: UInt16?
            public var leafWeight: UInt16?

            public init(major: Int64, minor: Int64, weight: UInt16) {
                self.major = major
                self.minor = minor
                self.weight = weight
            }
        }

        public struct ThrottleDevice: Codable, Sendable, Equatable {
            public var major: Int64
            public var minor: Int64
            /// Bytes or operations a second.
            public var rate: UInt64

            public init(major: Int64, minor: Int64, rate: UInt64) {
                self.major = major
                self.minor = minor
                self.rate = rate
            }
        }
    }

    public struct HugepageLimit: Codable, Sendable, Equatable {
        /// `2MB`, `1GB`.
        public var pageSize: String
        /// Bytes.
        public var limit: UInt64

        public init(pageSize: String, limit: UInt64) {
            self.pageSize = pageSize
            self.limit = limit
        }
    }

    public struct Network: Codable, Sendable, Equatable {
        public var classID: UInt32?
        @OrEmpty public var priorities: [Priority] = []

        public init() {}

        public struct Priority: Codable, Sendable, Equatable {
            public var name: String
            public var priority: UInt32

            public init(name: String, priority: UInt32) {
                self.name = name
                self.priority = priority
            }
        }
    }

    public struct Rdma: Codable, Sendable, Equatable {
        public var hcaHandles: UInt32?
        public var hcaObjects: UInt32?

        public init() {}
    }
}
