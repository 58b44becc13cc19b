import Glibc
import Sandbox
import Synchronization
import TTRPC
import TaskAPI

/// What `events` tells: runc's fields.
public enum ContainerEvent: Sendable {
    case stats(ContainerStatsReport)
    /// The kernel has killed processes of the container because memory ran out.
    case oom
}

extension Runtime {
    /// `events --stats`.
    public func stats(_ id: String) async throws -> ContainerStatsReport {
        try await asking {
            guard try await open(id).status().state != .stopped else {
                throw SandboxError.wrongState("container with id \(id) is not running")
            }
            return try await ContainerStatsReport(metrics(id))
        }
    }

    /// `events`: tells of the container until it has ended.
    ///
    /// - Parameter interval: between two reports of its counters.
    public func events(
        _ id: String, interval: Duration, _ tell: @Sendable @escaping (ContainerEvent) throws -> Void
    ) async throws {
        try await asking {
            let container = try await open(id)
            guard let inspection = container.inspection, try await container.status().state != .stopped else {
                throw SandboxError.wrongState("container with id \(id) is not running")
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    while true {
                        try tell(.stats(ContainerStatsReport(await metrics(id))))
                        try await Task.sleep(for: interval)
                    }
                }
                group.addTask { try await follow(id, inspection, tell) }
                // The counters fail when the container has gone, which the other task sees too.
                do { try await group.next() } catch  where !(error is TTRPCError) && !(error is SandboxError) {
                    throw error
                }
                group.cancelAll()
            }
        }
    }

    private func follow(
        _ id: String, _ inspection: InspectionServiceClient, _ tell: (ContainerEvent) throws -> Void
    ) async throws {
        var next: UInt64 = 0
        while true {
            let first = next
            let reply = try await inspection.events(.with { $0.first = first }, timeout: .seconds(60))
            next = reply.first + UInt64(reply.events.count)
            for event in reply.events where event.containerID == id && event.execID.isEmpty {
                if event.type == "oom" { try tell(.oom) }
                if event.type == "exited" || event.type == "deleted" { return }
            }
        }
    }
}

/// The counters of a container, with the names that runc's `events` has (runc, types/events.go).
public struct ContainerStatsReport: Encodable, Sendable {
    public struct CPU: Encodable, Sendable {
        public struct Usage: Encodable, Sendable {
            /// Nanoseconds.
            var total: UInt64
            var kernel: UInt64
            var user: UInt64
        }
        public struct Throttling: Encodable, Sendable {
            var periods: UInt64
            var throttledPeriods: UInt64
            /// Nanoseconds.
            var throttledTime: UInt64
        }
        var usage: Usage
        var throttling: Throttling
    }

    public struct Memory: Encodable, Sendable {
        public struct Entry: Encodable, Sendable {
            /// Bytes, all of them; 0: no limit.
            var limit: UInt64
            var usage: UInt64
            var max: UInt64
            var failcnt: UInt64
        }
        var cache: UInt64
        var usage: Entry
        var swap: Entry
        /// The guest's memory.stat.
        var raw: [String: UInt64]
    }

    public struct Pids: Encodable, Sendable {
        var current: UInt64
        /// 0: no limit.
        var limit: UInt64
    }

    public struct HugePages: Encodable, Sendable {
        var usage: UInt64
        var max: UInt64
        var failcnt: UInt64
    }

    public struct BlockEntry: Encodable, Sendable {
        var major: UInt64
        var minor: UInt64
        var op: String
        var value: UInt64
    }

    public struct Block: Encodable, Sendable {
        var ioServiceBytesRecursive: [BlockEntry]
        var ioServicedRecursive: [BlockEntry]
    }

    var cpu: CPU
    var memory: Memory
    var pids: Pids
    var blkio: Block
    var hugetlb: [String: HugePages]

    /// The guest may report any number; the largest stands for what is beyond.
    private static func nanoseconds(_ microseconds: UInt64) -> UInt64 {
        let (result, isTooLarge) = microseconds.multipliedReportingOverflow(by: 1000)
        return isTooLarge ? .max : result
    }

    init(_ metrics: MetricsMetrics) {
        cpu = CPU(
            usage: .init(
                total: Self.nanoseconds(metrics.cpu.usageUsec), kernel: Self.nanoseconds(metrics.cpu.systemUsec),
                user: Self.nanoseconds(metrics.cpu.userUsec)),
            throttling: .init(
                periods: metrics.cpu.nrPeriods, throttledPeriods: metrics.cpu.nrThrottled,
                throttledTime: Self.nanoseconds(metrics.cpu.throttledUsec)))
        let stats = metrics.memory
        memory = Memory(
            cache: stats.file,
            usage: .init(
                limit: stats.usageLimit, usage: stats.usage, max: stats.maxUsage, failcnt: metrics.memoryEvents.max),
            swap: .init(limit: stats.swapLimit, usage: stats.swapUsage, max: 0, failcnt: 0),
            raw: Dictionary(uniqueKeysWithValues: MetricsMemoryStat.fields.map { ($0.0, stats[keyPath: $0.1]) }))
        pids = Pids(current: metrics.pids.current, limit: metrics.pids.limit)
        let disks = metrics.io.usage
        blkio = Block(
            ioServiceBytesRecursive: disks.flatMap {
                [
                    BlockEntry(major: $0.major, minor: $0.minor, op: "Read", value: $0.rbytes),
                    BlockEntry(major: $0.major, minor: $0.minor, op: "Write", value: $0.wbytes),
                ]
            },
            ioServicedRecursive: disks.flatMap {
                [
                    BlockEntry(major: $0.major, minor: $0.minor, op: "Read", value: $0.rios),
                    BlockEntry(major: $0.major, minor: $0.minor, op: "Write", value: $0.wios),
                ]
            })
        hugetlb = Dictionary(
            metrics.hugetlb.map { ($0.pagesize, HugePages(usage: $0.current, max: $0.max, failcnt: $0.failcnt)) },
            uniquingKeysWith: { first, _ in first })
    }
}
