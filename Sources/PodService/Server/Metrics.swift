import Sandbox
import TaskAPI

extension MetricsMetrics {
    /// The counters of a container's control group in the guest, as engines read them.
    init(_ stats: ContainerStatistics) {
        self.init()
        pids = .with {
            $0.current = stats.pidsCurrent
            $0.limit = stats.pidsLimit == .max ? 0 : stats.pidsLimit
        }
        cpu = .with {
            $0.usageUsec = stats.cpu["usage_usec"] ?? 0
            $0.userUsec = stats.cpu["user_usec"] ?? 0
            $0.systemUsec = stats.cpu["system_usec"] ?? 0
            $0.nrPeriods = stats.cpu["nr_periods"] ?? 0
            $0.nrThrottled = stats.cpu["nr_throttled"] ?? 0
            $0.throttledUsec = stats.cpu["throttled_usec"] ?? 0
            $0.nrBursts = stats.cpu["nr_bursts"] ?? 0
            $0.burstUsec = stats.cpu["burst_usec"] ?? 0
        }
        memory = MetricsMemoryStat(stats)
        memoryEvents = .with {
            $0.low = stats.memoryEvents["low"] ?? 0
            $0.high = stats.memoryEvents["high"] ?? 0
            $0.max = stats.memoryEvents["max"] ?? 0
            $0.oom = stats.memoryEvents["oom"] ?? 0
            $0.oomKill = stats.memoryEvents["oom_kill"] ?? 0
            $0.oomGroupKill = stats.memoryEvents["oom_group_kill"] ?? 0
        }
        io = .with {
            $0.usage = stats.disks.map { disk in
                .with {
                    $0.major = disk.major
                    $0.minor = disk.minor
                    $0.rbytes = disk.counters["rbytes"] ?? 0
                    $0.wbytes = disk.counters["wbytes"] ?? 0
                    $0.rios = disk.counters["rios"] ?? 0
                    $0.wios = disk.counters["wios"] ?? 0
                }
            }
        }
        hugetlb = stats.hugePages.map { pages in
            .with {
                $0.pagesize = pages.pageSize
                $0.current = pages.current
                $0.max = pages.limit
                $0.failcnt = pages.failures
            }
        }
    }
}

extension MetricsMetrics {
    /// What a pod as a whole uses on the host: its server, its machine and what belongs to that.
    ///
    /// - Parameter guestMemory: of the machine, bytes.
    init(_ use: HostUsage, guestMemory: UInt64) {
        self.init()
        let all = use.kinds.values
        func sum(_ field: (HostUsage.Counters) -> UInt64) -> UInt64 { all.reduce(0) { $0 + field($1) } }
        pids = .with { $0.current = sum(\.threads) }
        cpu = .with {
            $0.userUsec = sum(\.user)
            $0.systemUsec = sum(\.system)
            $0.usageUsec = $0.userUsec + $0.systemUsec
        }
        memory = .with {
            $0.usage = sum { $0.proportional ?? $0.resident }
            $0.usageLimit = guestMemory
            $0.anon = sum(\.anonymous)
            $0.swapUsage = sum(\.swap)
            $0.pgmajfault = sum(\.majorFaults)
        }
    }
}

extension MetricsMemoryStat {
    static let fields: [(String, WritableKeyPath<MetricsMemoryStat, UInt64> & Sendable)] = [
        ("anon", \.anon), ("file", \.file), ("kernel_stack", \.kernelStack), ("slab", \.slab), ("sock", \.sock),
        ("shmem", \.shmem), ("file_mapped", \.fileMapped), ("file_dirty", \.fileDirty),
        ("file_writeback", \.fileWriteback), ("anon_thp", \.anonThp), ("inactive_anon", \.inactiveAnon),
        ("active_anon", \.activeAnon), ("inactive_file", \.inactiveFile), ("active_file", \.activeFile),
        ("unevictable", \.unevictable), ("slab_reclaimable", \.slabReclaimable),
        ("slab_unreclaimable", \.slabUnreclaimable), ("pgfault", \.pgfault), ("pgmajfault", \.pgmajfault),
        ("workingset_refault_file", \.workingsetRefault), ("workingset_activate_file", \.workingsetActivate),
        ("workingset_nodereclaim", \.workingsetNodereclaim), ("pgrefill", \.pgrefill), ("pgscan", \.pgscan),
        ("pgsteal", \.pgsteal), ("pgactivate", \.pgactivate), ("pgdeactivate", \.pgdeactivate),
        ("pglazyfree", \.pglazyfree), ("pglazyfreed", \.pglazyfreed), ("thp_fault_alloc", \.thpFaultAlloc),
        ("thp_collapse_alloc", \.thpCollapseAlloc),
    ]

    init(_ stats: ContainerStatistics) {
        self.init()
        for (name, field) in Self.fields { self[keyPath: field] = stats.memory[name] ?? 0 }
        usage = stats.memoryUsage
        usageLimit = stats.memoryLimit
        swapUsage = stats.swapUsage
        swapLimit = stats.swapLimit
        maxUsage = stats.memoryPeak
    }
}
