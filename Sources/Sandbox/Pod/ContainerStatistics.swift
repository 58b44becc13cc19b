/// A process of a container, as the guest knows it.
package struct GuestProcess: Sendable, Equatable {
    /// In the guest's process id namespace.
    package var pid: UInt32
    /// The real user's id, in the guest's user namespace.
    package var userID: UInt32
    /// Its arguments with spaces between, or its name in brackets where it has none; at most 1 KiB.
    package var command: String
    /// 0: none that can be seen.
    package var parent: UInt32
    /// Nanoseconds since its start.
    package var age: UInt64
    /// Nanoseconds.
    package var cpuTime: UInt64
    /// `pts/0`; empty: none.
    package var terminal: String
}

/// What the cgroup of a container in the guest has counted. A limit that is not set is the largest number.
///
/// Source: Documentation/admin-guide/cgroup-v2.rst.
package struct ContainerStatistics: Sendable, Equatable {
    /// A line of `io.stat`.
    package struct Disk: Sendable, Equatable {
        package var major: UInt64
        package var minor: UInt64
        package var counters: [String: UInt64]
    }

    /// The files of one page size of `hugetlb`.
    package struct HugePages: Sendable, Equatable {
        /// As the kernel writes it: `2MB`.
        package var pageSize: String
        package var current: UInt64
        package var limit: UInt64
        package var failures: UInt64
    }

    package var pidsCurrent: UInt64
    package var pidsLimit: UInt64
    /// `cpu.stat`, by the names of its lines.
    package var cpu: [String: UInt64]
    /// `memory.stat`, likewise.
    package var memory: [String: UInt64]
    /// `memory.events`, likewise.
    package var memoryEvents: [String: UInt64]
    /// Bytes.
    package var memoryUsage: UInt64
    package var memoryLimit: UInt64
    package var memoryPeak: UInt64
    package var swapUsage: UInt64
    package var swapLimit: UInt64
    package var disks: [Disk]
    package var hugePages: [HugePages]
}
