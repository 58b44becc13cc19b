import LinuxSystem
import VMMControl

/// What comes and goes in a machine that QEMU runs.
struct QEMUParts: Sendable {
    let slots: QEMUSlots
    let networks: QEMUNetworks
    let disks: QEMUDisks
    let memory: QEMUMemory
    let processors: QEMUProcessors

    /// - Parameters:
    ///   - watch: gets the events of disks' processes.
    ///   - balloon: the name of the balloon's device.
    init(
        _ driver: QEMUDriver, _ vm: VMConfiguration, _ watch: MachineWatch, balloon: String = QEMUDriver.balloonID,
        log: @Sendable @escaping (String) -> Void
    ) {
        slots = QEMUSlots(count: QEMUDriver.slotCount, logger: driver.logger)
        networks = QEMUNetworks(slots, vhost: driver.hasVhostNet)
        disks = QEMUDisks(slots, watch, user: vm.user, queues: Disk.queues(vcpus: vm.vcpus), log: log)
        memory = QEMUMemory(bytes: UInt64(vm.memoryMiB) << 20, hotplugBytes: vm.hotplugBytes, balloon: balloon)
        processors = QEMUProcessors(count: vm.vcpus, maximum: vm.maximumVCPUs, driver.accelerator)
    }
}

/// A machine that QEMU runs, with parts that come and go by commands of QEMU's monitor.
protocol PluggedMachine: ComposedMachine {
    var monitor: any QEMUMonitor { get }
    var parts: QEMUParts { get }
    /// The processes that live as long as the machine.
    var firstProcesses: [(name: String, pid: Int32)] { get }
}

extension PluggedMachine {
    var disks: [DeviceProcess] { parts.disks.processes }

    var processes: [(name: String, pid: Int32)] { firstProcesses + disks.map { ($0.process.name, $0.child.pid) } }

    func setBalloon(bytes: UInt64) throws { try parts.memory.setBalloon(bytes: bytes, monitor) }

    func balloon(timeout: Duration) throws -> ProcessStatistics.Balloon {
        try parts.memory.balloon(monitor, timeout: timeout)
    }

    func ownBalloon(timeout: Duration) -> ProcessStatistics.Balloon? { try? balloon(timeout: timeout) }

    func setMemory(bytes: UInt64) throws { try parts.memory.setHotplug(bytes: bytes, monitor) }

    func setVCPUs(_ count: Int) throws { try parts.processors.set(count, monitor) }

    func hotplug(timeout: Duration) throws -> ProcessStatistics.Hotplug {
        let (requested, plugged) = try parts.memory.hotplug(monitor, timeout: timeout)
        return ProcessStatistics.Hotplug(
            vcpus: UInt32(clamping: try parts.processors.count(monitor, timeout: timeout)), requested: requested,
            plugged: plugged)
    }

    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {
        try parts.networks.add(hardwareAddress: hardwareAddress, queues: queues, monitor)
    }

    func removeNetwork(hardwareAddress: [UInt8]) throws {
        try parts.networks.remove(hardwareAddress: hardwareAddress, monitor)
    }

    func addDisk(_ disk: Disk) throws { try parts.disks.add(disk, monitor) }

    func removeDisk(id: String) throws { try parts.disks.remove(id: id, monitor) }
}
