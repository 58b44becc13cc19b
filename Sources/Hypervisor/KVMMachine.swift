import AgentContract
import CLinux
import Glibc
import LinuxSystem
import Logging
import VMMControl

/// A VM that `martlet-vmm` runs, with a device process for files.
///
/// Everything that these may touch is opened here and handed over as a descriptor.
final class KVMMachine: ComposedMachine {
    let watch: MachineWatch
    let console: Console
    /// `martlet-vmm`, which serves vsock itself.
    let vsock: DeviceProcess
    let files: DeviceProcess?
    /// `martlet-vmm` serves disks itself.
    var disks: [DeviceProcess] { [] }
    let processes: [(name: String, pid: Int32)]
    /// Bytes of the guest's memory, from the start on.
    private let memorySize: Int64
    private let diskQueues: UInt8
    private let logger: Logger

    /// - Parameter restored: of a machine that goes on with its containers.
    init(_ driver: KVMDriver, _ configuration: VMConfiguration, _ restored: RestoredDevices? = nil) throws {
        let logger = driver.logger
        self.logger = logger
        diskQueues = Disk.queues(vcpus: configuration.vcpus)
        let watch = try MachineWatch(readyEvent: .ready, logger: logger)
        self.watch = watch
        var devices = DeviceProcesses(watch, user: configuration.user) { logger.debug("\($0)") }
        do {
            let memory = try GuestMemoryFile(configuration)
            memorySize = Int64(configuration.memoryMiB) << 20
            vsock = try devices.start("martlet-vmm", as: "machine")
            files = configuration.hasFiles ? try devices.start("martlet-device", "files", as: "files") : nil
            logger.phase("machine spawned")
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            console = try Console("guest console", source: ours) { logger.debug("guest: \($0)") }
            let time = try Self.build(
                vsock.client, files?.client, configuration, memory, restored, console: theirs.raw)
            logger.phase("first instruction", at: time)
        } catch {
            throw devices.abandon(after: error)
        }
        processes = devices.all.map { ($0.name, $0.child.pid) }
        watch.started()
        let console = console
        watch.begin(devices.all) { [all = devices.all] signs in
            console.waitForEnd(timeout: .seconds(1))
            return .cause(of: signs, console: console) { all.outputTail(of: $0) }
        }
    }

    /// Has the processes build the machine, and starts it. Each request is sent without waiting for the one before; a failure of
    /// one is thrown first, as the others follow from it.
    ///
    /// - Returns: the monotonic time in nanoseconds of the guest's first instruction.
    private static func build(
        _ vmm: ControlClient, _ files: ControlClient?, _ configuration: VMConfiguration, _ memory: GuestMemoryFile,
        _ restored: RestoredDevices?, console: Int32
    ) throws -> UInt64 {
        let kvm = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
        var replies = [
            try vmm.makeMachine(
                kvm: kvm.raw, memory: memory.file.raw,
                MachineLayout(
                    memoryBytes: UInt64(configuration.memoryMiB) << 20, hotplugBytes: configuration.hotplugBytes,
                    isPrivate: memory.isPrivate, vcpus: UInt32(configuration.vcpus),
                    maximumVCPUs: UInt32(configuration.maximumVCPUs), cpu: configuration.cpu))
        ]
        if let path = configuration.rootImage {
            let file = try OwnedDescriptor.open(path, O_RDONLY)
            replies.append(try vmm.addRootImage(file: file.raw))
        }
        replies.append(try vmm.addConsole(output: console, kind: .virtio))
        if configuration.debugConsole { replies.append(try vmm.addConsole(output: console, kind: .serial)) }
        replies.append(try vmm.addEntropy())
        replies.append(try vmm.addBalloon(reportsFreePages: configuration.reportsFreePages))
        if configuration.hotplugMiB > 0 { replies.append(try vmm.addMemory()) }
        replies.append(try vmm.addVsock(guestCID: configuration.guestCID))
        if let files {
            replies +=
                memory.isPrivate
                ? try relay(files, to: vmm, configuration) : try connect(files, to: vmm, configuration)
        }
        if let template = configuration.template, let restored {
            if let files { try restore(restored.shares, files, template) }
            for disk in restored.disks {
                let queues = Disk.queues(vcpus: configuration.vcpus)
                replies.append(
                    try disk.open().send {
                        try vmm.addBlock(files: $0, readOnly: disk.readOnly, id: disk.id, queues: queues)
                    })
            }
            for network in restored.networks {
                replies.append(
                    try vmm.addNetwork(
                        queues: network.queues.map(\.raw), hardwareAddress: network.hardwareAddress))
            }
        }
        let start =
            try configuration.template.map { try restore(vmm, $0, resetsConnections: restored != nil) }
            ?? boot(vmm, configuration)
        for reply in replies { try reply.wait() }
        guard case .booted(let firstInstruction) = try start.wait() else {
            throw HypervisorError("martlet-vmm did not say when the guest began")
        }
        return firstInstruction
    }

    private static func boot(
        _ vmm: ControlClient, _ configuration: VMConfiguration
    ) throws -> ControlClient.PendingReply {
        let kernel = try OwnedDescriptor.open(configuration.kernel, O_RDONLY)
        let initramfs = try configuration.bootInitramfs.map { try SharedDescriptor(OwnedDescriptor.open($0, O_RDONLY)) }
        let arguments = configuration.bootArguments + [AgentDoorbell.kernelArgument]
        return try vmm.boot(
            kernel: kernel.raw, initramfs: initramfs?.raw, commandLine: arguments.joined(separator: " "))
    }

    private static func restore(
        _ vmm: ControlClient, _ template: MachineTemplate, resetsConnections: Bool
    ) throws -> ControlClient.PendingReply {
        let state = try OwnedDescriptor.open(template.state, O_RDONLY)
        return try vmm.restore(state: state.raw, resetsConnections: resetsConnections)
    }

    /// Gives the file server the shares that the guest knows, and what it has told the guest of them.
    private static func restore(
        _ shares: [RestoredDevices.Share], _ files: ControlClient, _ template: MachineTemplate
    ) throws {
        for share in shares {
            try files.addShare(name: share.name, directory: share.tree.raw, readOnly: share.isReadOnly)
        }
        let state = try OwnedDescriptor.open(template.files, O_RDONLY)
        try files.restoreFiles(from: state.raw)
    }

    /// The file device of a machine whose memory both processes map.
    private static func connect(
        _ files: ControlClient, to vmm: ControlClient, _ configuration: VMConfiguration
    ) throws -> [ControlClient.PendingReply] {
        let (machineEnd, deviceEnd) = try SharedDescriptor.socketPair(SOCK_STREAM)
        return [
            try files.startFiles(
                vhostUser: deviceEnd.raw, tag: ShareDevice.tag, memoryLimit: configuration.filesMemoryLimit,
                allowsDevices: configuration.allowsDeviceNodes),
            try vmm.addFiles(vhostUser: machineEnd.raw, tag: ShareDevice.tag),
        ]
    }

    /// The file device of a machine whose memory `martlet-vmm` alone has.
    private static func relay(
        _ files: ControlClient, to vmm: ControlClient, _ configuration: VMConfiguration
    ) throws -> [ControlClient.PendingReply] {
        let area = try OwnedDescriptor.memory("file relay", size: RelayDescriptors<Int32>.areaSize)
        let (request, reply) = (try SharedDescriptor.event(), try SharedDescriptor.event())
        let relay = RelayDescriptors(area: area.raw, request: request.raw, reply: reply.raw)
        return [
            try files.startRelayedFiles(
                relay, tag: ShareDevice.tag, memoryLimit: configuration.filesMemoryLimit,
                allowsDevices: configuration.allowsDeviceNodes),
            try vmm.addRelayedFiles(relay, tag: ShareDevice.tag),
        ]
    }

    func save(to directory: MachineTemplate, withShares: Bool) throws {
        guard state == .paused else { throw HypervisorError("the machine is \(state), not paused") }
        let created = O_WRONLY | O_CREAT | O_EXCL
        let state = try OwnedDescriptor.open(directory.state, created, mode: 0o600)
        let memory = try OwnedDescriptor.open(directory.memory, created, mode: 0o600)
        // What is plugged lies behind that.
        try check("ftruncate", directory.memory, ftruncate(memory.raw, Int(memorySize)))
        _ = try vsock.client.save(state: state.raw, memory: memory.raw)
        try check("fdatasync", directory.state, fdatasync(state.raw))
        guard withShares, let files else { return }
        let shares = try OwnedDescriptor.open(directory.files, created, mode: 0o600)
        _ = try files.client.saveFiles(to: shares.raw)
        try check("fdatasync", directory.files, fdatasync(shares.raw))
    }

    func setBalloon(bytes: UInt64) throws { try vsock.client.setBalloon(bytes: bytes) }

    func balloon(timeout: Duration) throws -> ProcessStatistics.Balloon {
        guard let balloon = try vsock.client.statistics(timeout: timeout).balloon else {
            throw HypervisorError("the machine has no balloon")
        }
        return balloon
    }

    func setMemory(bytes: UInt64) throws { try vsock.client.setMemory(bytes: bytes) }

    func setVCPUs(_ count: Int) throws { try vsock.client.setVCPUs(UInt32(clamping: count)) }

    func hotplug(timeout: Duration) throws -> ProcessStatistics.Hotplug {
        guard let hotplug = try vsock.client.statistics(timeout: timeout).hotplug else {
            throw HypervisorError("martlet-vmm did not tell what the guest has")
        }
        return hotplug
    }

    func pauseVCPUs() throws { try vsock.client.pause() }

    func resumeVCPUs() throws { try vsock.client.resume() }

    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {
        try vsock.client.addNetwork(queues: queues, hardwareAddress: hardwareAddress).wait()
    }

    func addDisk(_ disk: Disk) throws {
        let reply = try disk.open().send {
            try vsock.client.addBlock(files: $0, readOnly: disk.readOnly, id: disk.id, queues: diskQueues).wait()
        }
        let mode = try DiskMode(reply)
        logger.debug("disk \(disk.id): \(mode)")
    }

    func removeDisk(id: String) throws { try vsock.client.removeBlock(id: id) }

    func removeNetwork(hardwareAddress: [UInt8]) throws {
        try vsock.client.removeNetwork(hardwareAddress: hardwareAddress)
    }
}
