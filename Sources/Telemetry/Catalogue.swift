/// All metrics there are. docs/metrics.md has the same table, and a test compares both.
extension MetricFamily {
    /// In the order in which they are shown.
    public static let all: [MetricFamily] = pod + hostProcesses + machine + containers + host

    // MARK: The pod

    private static let pod = [
        podInfo, podStartTime, podContainers, startPhase, containerRestarts, containerEnds, machineEnds, heartbeat,
        traceSpans,
    ]

    public static let podInfo = MetricFamily(
        .gauge, "pod_info", ["driver", "start"],
        "Always 1: the driver of the pod's machine, and what it started from (boot, template, checkpoint).")
    public static let podStartTime = MetricFamily(
        .gauge, "pod_start_time_seconds", [], "When the pod was created, seconds since the epoch.")
    public static let podContainers = MetricFamily(
        .gauge, "pod_containers", ["state"], "The pod's containers by their states.")
    public static let startPhase = MetricFamily(
        .histogram, "start_phase_seconds", ["phase"],
        "Time from the begin of the pod's launch until a phase of its start was over.",
        buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60])
    public static let containerRestarts = MetricFamily(
        .counter, "container_restarts", [],
        "Containers that took the place of one of the same name that the pod had before.")
    public static let containerEnds = MetricFamily(
        .counter, "container_ends", ["cause"],
        "Containers that have ended, by cause: success, error, signal, out_of_memory, machine.")
    public static let machineEnds = MetricFamily(
        .counter, "machine_ends", ["cause"], "Machines that have ended while the pod's server goes on, by cause.")
    public static let heartbeat = MetricFamily(
        .histogram, "agent_heartbeat_seconds", [], "How long the guest's agent took to send a heartbeat back.",
        buckets: [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5])

    public static let traceSpans = MetricFamily(
        .counter, "trace_spans", ["result"],
        "Spans for the collector of traces, by what has become of them: sent, dropped.")

    // MARK: Processes on the host

    private static let hostProcesses = [
        processCount, processCPU, processResident, processProportional, processThreads, processMajorFaults,
        processStorage,
    ]

    public static let processCount = MetricFamily(
        .gauge, "host_processes", ["process"],
        "The pod's processes on the host by their kinds: server, vmm, qemu, a device, container.")
    public static let processCPU = MetricFamily(
        .counter, "host_process_cpu_seconds", ["process", "mode"],
        "CPU time of the pod's processes on the host; that of vmm or qemu has the guest's.")
    public static let processResident = MetricFamily(
        .gauge, "host_process_resident_memory_bytes", ["process"],
        "Resident memory of the pod's processes on the host. What they share counts in each.")
    public static let processProportional = MetricFamily(
        .gauge, "host_process_proportional_memory_bytes", ["process"],
        "Proportional memory (PSS) of the pod's processes on the host: what processes share is divided among them.")
    public static let processThreads = MetricFamily(
        .gauge, "host_process_threads", ["process"], "Threads of the pod's processes on the host.")
    public static let processMajorFaults = MetricFamily(
        .counter, "host_process_major_faults", ["process"],
        "Page faults of the pod's processes on the host that had to read from storage.")
    public static let processStorage = MetricFamily(
        .counter, "host_process_storage_bytes", ["process", "direction"],
        "Bytes that the pod's processes on the host had storage read or write.")

    // MARK: The machine

    private static let machine = [
        guestMemory, guestAvailable, guestFree, guestCached, guestReported, guestBalloon, balloonTold,
        memoryReclaims, reclaimedCache, guestPressure, guestVCPUs, vcpuExits, vcpuExitsByReason,
        queueChains, queueBytes, queueInterrupts, fileOperations, vsockBytes,
        vsockConnections, networkBytes, networkPackets, networkDrops, networkErrors,
    ]

    public static let guestMemory = MetricFamily(
        .gauge, "guest_memory_bytes", [], "Memory that the machine has.")
    public static let guestAvailable = MetricFamily(
        .gauge, "guest_memory_available_bytes", [], "Memory that the guest's kernel could give to new processes.")
    public static let guestFree = MetricFamily(
        .gauge, "guest_memory_free_bytes", [], "Memory that the guest's kernel uses for nothing.")
    public static let guestCached = MetricFamily(
        .gauge, "guest_memory_cached_bytes", [], "Page cache of the guest.")
    public static let guestReported = MetricFamily(
        .counter, "guest_memory_reported_bytes", [],
        "Free memory that the guest has reported and that went back to the host, each time that it did.")
    public static let guestBalloon = MetricFamily(
        .gauge, "guest_balloon_bytes", [], "Memory that the guest has given up to the balloon.")
    public static let balloonTold = MetricFamily(
        .gauge, "guest_balloon_statistic_bytes", ["kind"],
        "Memory of the guest as its balloon driver has told last: available, cached, free.")
    public static let memoryReclaims = MetricFamily(
        .counter, "memory_reclaims", [], "How often the guest was asked to give memory back, as the pod was idle.")
    public static let reclaimedCache = MetricFamily(
        .counter, "memory_reclaimed_bytes", [], "Page cache that the guest has dropped then.")
    public static let guestPressure = MetricFamily(
        .counter, "guest_pressure_seconds", ["resource", "kind"],
        "Time for which some or all (full) of the guest's tasks have waited for cpu, memory or io (PSI).")
    public static let guestVCPUs = MetricFamily(.gauge, "guest_vcpus", [], "vCPUs of the machine.")
    public static let vcpuExits = MetricFamily(
        .counter, "vcpu_exits", [], "Exits of the machine's vCPUs to the host, of all kinds, as KVM counts them.")
    public static let vcpuExitsByReason = MetricFamily(
        .counter, "vcpu_reason_exits", ["reason"], "Those exits that KVM counts by reason too.")
    public static let queueChains = MetricFamily(
        .counter, "queue_chains", ["device", "queue"], "Chains of a virtqueue that a device has served.")
    public static let queueBytes = MetricFamily(
        .counter, "queue_bytes", ["device", "queue", "direction"],
        "Bytes of those chains: what the device could read, and what it wrote.")
    public static let queueInterrupts = MetricFamily(
        .counter, "queue_interrupts", ["device", "queue"], "Interrupts that a device has sent for a virtqueue.")
    public static let fileOperations = MetricFamily(
        .histogram, "file_operation_seconds", ["operation"], "How long the file server took for requests of the guest.",
        buckets: [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.1, 1])
    public static let vsockBytes = MetricFamily(
        .counter, "vsock_bytes", ["direction"],
        "Bytes of the connections between host and guest; direction as the guest sees it.")
    public static let vsockConnections = MetricFamily(
        .gauge, "vsock_connections", [], "Connections between host and guest.")
    public static let networkBytes = MetricFamily(
        .counter, "network_bytes", ["interface", "direction"],
        "Bytes of frames of the pod's interfaces; direction as the guest sees it.")
    public static let networkPackets = MetricFamily(
        .counter, "network_packets", ["interface", "direction"], "Frames of the pod's interfaces.")
    public static let networkDrops = MetricFamily(
        .counter, "network_drops", ["interface", "direction"], "Frames that were dropped between host and guest.")
    public static let networkErrors = MetricFamily(
        .counter, "network_errors", ["interface", "direction"], "Frames that were wrong.")

    // MARK: Containers in the guest

    private static let containers = [
        containerCPU, containerThrottled, containerMemory, containerMemoryPeak, containerMemoryLimit,
        containerAnonymous, containerFile, containerSwap, containerProcesses, containerOOMKills,
        containerMajorFaults, containerDiskBytes, containerDiskOperations,
    ]

    public static let containerCPU = MetricFamily(
        .counter, "container_cpu_seconds", ["container", "mode"], "CPU time of a container in the guest.")
    public static let containerThrottled = MetricFamily(
        .counter, "container_cpu_throttled_seconds", ["container"],
        "Time for which a container's CPU limit has kept it waiting.")
    public static let containerMemory = MetricFamily(
        .gauge, "container_memory_usage_bytes", ["container"],
        "Memory of a container's cgroup in the guest, with its page cache.")
    public static let containerMemoryPeak = MetricFamily(
        .gauge, "container_memory_peak_bytes", ["container"], "The most memory that a container's cgroup has had.")
    public static let containerMemoryLimit = MetricFamily(
        .gauge, "container_memory_limit_bytes", ["container"], "A container's memory limit; not there without one.")
    public static let containerAnonymous = MetricFamily(
        .gauge, "container_memory_anonymous_bytes", ["container"], "Memory of a container that no file stands behind.")
    public static let containerFile = MetricFamily(
        .gauge, "container_memory_file_bytes", ["container"], "Page cache of a container.")
    public static let containerSwap = MetricFamily(
        .gauge, "container_swap_usage_bytes", ["container"], "Memory of a container that is swapped out in the guest.")
    public static let containerProcesses = MetricFamily(
        .gauge, "container_processes", ["container"], "Processes and threads in a container.")
    public static let containerOOMKills = MetricFamily(
        .counter, "container_oom_kills", ["container"],
        "Processes of a container that the guest's kernel killed as memory ran out.")
    public static let containerMajorFaults = MetricFamily(
        .counter, "container_major_faults", ["container"],
        "Page faults of a container that had to read a file in the guest.")
    public static let containerDiskBytes = MetricFamily(
        .counter, "container_disk_bytes", ["container", "direction"],
        "Bytes that a container had disks of the guest read or write.")
    public static let containerDiskOperations = MetricFamily(
        .counter, "container_disk_operations", ["container", "direction"],
        "Requests of a container to disks of the guest.")

    // MARK: The host

    private static let host = [pods, podEnds]

    public static let pods = MetricFamily(
        .gauge, "pods", ["state"],
        "Pods of this host: running, dead (its server has died), unreachable (its metrics could not be read).")
    public static let podEnds = MetricFamily(
        .counter, "pod_ends", ["cause"], "Machines of this host that have ended since it booted, by cause.")
}
