import DeviceService
import LinuxSystem
import Machine
import VMMControl
import VhostUser
import Virtio

/// The devices that the host has added to a machine. Belongs to the loop's thread.
final class MachineDevices {
    /// A network interface in an MMIO slot.
    private struct NetworkInterface {
        var hardwareAddress: [UInt8]
        var slot: Int
        var backend: NetBackend
    }

    /// A disk that was added to the running machine.
    private struct Disk {
        var id: String
        var slot: Int
        var backend: BlockBackend
    }

    private let vmm: VMM
    private let control: ControlSocket
    private let loop: EventLoop
    private let reporter: EndReporter
    private let rings: RingPool
    private(set) var vsock: VsockService?
    private var balloon: BalloonBackend?
    private var memory: MemoryBackend?
    /// Those that were there from the start on.
    private var devices: [(kind: DeviceKind, device: any BackendDevice)] = []
    private var networks: [NetworkInterface] = []
    private var disks: [Disk] = []
    /// Those that a machine which is going to be restored gets, in no slot yet.
    private var restored: [(hardwareAddress: [UInt8], backend: NetBackend)] = []
    /// Disks that were added before the start, in no slot yet.
    private var earlyDisks: [(id: String, backend: BlockBackend)] = []

    /// The rings of all disks that a machine will have, made before the process enters its jail.
    static func makeRings() -> RingPool { RingPool(count: BlockBackend.maximumQueues, isShared: true) }

    init(
        _ vmm: VMM, _ control: ControlSocket, _ loop: EventLoop, _ reporter: EndReporter, _ rings: RingPool
    ) {
        self.rings = rings
        self.vmm = vmm
        self.control = control
        self.loop = loop
        self.reporter = reporter
    }

    /// How long the loop may sleep: milliseconds, -1: without limit.
    var timeout: Int32 { vsock?.backend.timeout ?? -1 }

    /// Does what is due after each round of the loop.
    func afterRound() { vsock?.backend.afterRound() }

    private func add(_ kind: DeviceKind, _ device: any BackendDevice, maximumSize: UInt32 = 256) throws {
        try vmm.addVirtio(deviceID: kind.id, device, maximumSize: maximumSize, onFailure: broken("\(kind)"))
        devices.append((kind, device))
    }

    /// What the devices have counted, those that this process serves.
    func statistics() -> ProcessStatistics {
        var statistics = ProcessStatistics()
        var numbers: [DeviceKind: Int] = [:]
        for (kind, device) in devices + networks.map({ (.network, $0.backend) })
            + disks.map({ (.block, $0.backend) })
        {
            statistics.add(kind, numbers[kind, default: 0], device)
            numbers[kind, default: 0] += 1
        }
        statistics.connections = vsock.map { .init($0.backend.device) }
        statistics.balloon = balloon.map { .init($0) }
        statistics.hotplug = .init(
            vcpus: UInt32(vmm.presentVCPUs), requested: memory?.requestedBytes ?? 0, plugged: memory?.pluggedBytes ?? 0)
        return statistics
    }

    private func broken(_ name: String) -> @Sendable (String) -> Void {
        let control = control
        return { reason in control.reportBroken("\(name): \(reason)") }
    }

    // MARK: Before the boot

    func addRootImage(_ file: SharedDescriptor) throws {
        let range = try vmm.mapRootImage(file)
        try add(.rootImage, PmemBackend(range: range, loop: loop, onBroken: broken("root image")))
    }

    func addConsole(_ output: SharedDescriptor) throws {
        let console = try ConsoleBackend(output: output, loop: loop, onBroken: broken("console"))
        try add(.console, console)
        reporter.console = console
    }

    func addEntropy() throws { try add(.entropy, RNGBackend(loop: loop, onBroken: broken("rng"))) }

    func addBalloon(reportsFreePages: Bool) throws {
        guard balloon == nil else { throw MachineError("the machine has a balloon already") }
        let device = BalloonBackend(
            isPrivate: vmm.vm.isPrivate, reportsFreePages: reportsFreePages, loop: loop, onBroken: broken("balloon"))
        try add(.balloon, device)
        balloon = device
    }

    /// Has the guest give up so much of its memory.
    func setBalloon(bytes: UInt64) throws {
        guard let balloon else { throw MachineError("the machine has no balloon") }
        guard bytes <= vmm.vm.map.fileSize else {
            throw MachineError("a balloon of \(bytes) bytes: the machine has \(vmm.vm.map.fileSize)")
        }
        balloon.setSize(bytes: bytes)
    }

    func addMemory() throws {
        guard memory == nil else { throw MachineError("the machine has a memory device already") }
        guard let bank = vmm.vm.map.hotplug else { throw MachineError("the machine has no hotplug memory") }
        let device = MemoryBackend(
            region: bank.address..<bank.end, usableBytes: 0, memory: vmm.vm.memory, isPrivate: vmm.vm.isPrivate,
            loop: loop,
            onBroken: broken("memory"))
        try add(.memory, device)
        memory = device
    }

    /// Has the guest use so much of the hotplug memory.
    func setMemory(bytes: UInt64) throws {
        guard let memory, let bank = vmm.vm.map.hotplug else {
            throw MachineError("the machine has no memory device")
        }
        let unit = MemoryMap.hotplugUnit
        let usable = (min(bytes, bank.count) + unit - 1) / unit * unit + Self.hotplugMargin
        try vmm.provideHotplugMemory(min(usable, bank.count))
        memory.extend(usableBytes: vmm.hotplugBytes)
        try memory.request(bytes: bytes)
    }

    /// The guest may not be able to use all of the first blocks, and gets some more to choose from.
    private static let hotplugMargin = 2 * MemoryMap.hotplugUnit

    /// Has KVM know the memory that the guest of a restored machine may use.
    func provideRestoredMemory() throws { try vmm.provideHotplugMemory(memory?.usableBytes ?? 0) }

    /// Guest-physical addresses of the hotplug memory that is plugged.
    var hotplugged: [Range<UInt64>] { memory?.pluggedRanges ?? [] }

    func addVsock(guestCID: UInt64) throws {
        guard vsock == nil else { throw MachineError("the machine has a vsock device already") }
        let service = VsockService(
            guestCID: guestCID, queueCount: 3, control: control, loop: loop, onBroken: broken("vsock"))
        try add(.vsock, service.backend)
        vsock = service
    }

    func addFiles(tag: String, socket: SharedDescriptor) throws {
        let device = try VhostUserFrontEnd(
            socket: socket, memory: vmm.vm.sharedMemory(), queueCount: 2,
            configuration: .own(FileDevice.configuration(tag: tag, requestQueues: 1)))
        let broken = broken("files")
        try device.watch(loop) { broken("\($0)") }
        try add(.files, device, maximumSize: 512)
    }

    func addRelayedFiles(tag: String, _ relay: RelayDescriptors<SharedDescriptor>) throws {
        let relay = try FileRelay(area: relay.area, request: relay.request, reply: relay.reply)
        let device = FileDevice(tag: tag) { relay.forward($0, $1) }
        try add(.files, FilesBackend(device: device, onBroken: broken("files")), maximumSize: 512)
    }

    // MARK: Network interfaces

    func addNetwork(hardwareAddress: [UInt8], tap: [SharedDescriptor]) throws {
        guard tap.count <= Tap.maximumQueues else {
            throw MachineError("a network interface of \(tap.count) queues: more than \(Tap.maximumQueues)")
        }
        let broken = broken("network")
        let backend = try NetBackend(tap: tap, hardwareAddress: hardwareAddress, onBroken: broken)
        guard vmm.state.isBooted else { return restored.append((hardwareAddress, backend)) }
        let slot = try vmm.plugVirtio(deviceID: DeviceKind.network.id, backend, onFailure: broken)
        networks.append(NetworkInterface(hardwareAddress: hardwareAddress, slot: slot, backend: backend))
    }

    /// Puts the interfaces that were added before the start where the machine had them when it was saved.
    ///
    /// - Throws: `MachineError` where one is missing, or there is one too many.
    func placeNetworks(_ places: [MachineSnapshot.Network]) throws {
        for place in places {
            guard let index = restored.firstIndex(where: { $0.hardwareAddress == place.hardwareAddress }) else {
                throw MachineError(
                    "the state has a network interface \(Self.text(place.hardwareAddress)), which is missing")
            }
            let (address, backend) = restored.remove(at: index)
            try vmm.addVirtio(
                deviceID: DeviceKind.network.id, backend, slot: place.slot, onFailure: broken("network"))
            networks.append(NetworkInterface(hardwareAddress: address, slot: place.slot, backend: backend))
        }
        if let first = restored.first {
            throw MachineError(
                "the machine is to start without a network interface \(Self.text(first.hardwareAddress))")
        }
    }

    private static func text(_ hardwareAddress: [UInt8]) -> String {
        hardwareAddress.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }

    /// Takes an interface away.
    ///
    /// - Parameter done: its slot is free.
    func removeNetwork(hardwareAddress: [UInt8], _ done: @escaping @Sendable () -> Void) throws {
        let index = try index(of: hardwareAddress)
        try vmm.unplugVirtio(slot: networks[index].slot, done)
        networks.remove(at: index)
    }

    func setNetworkLink(hardwareAddress: [UInt8], isUp: Bool) throws {
        networks[try index(of: hardwareAddress)].backend.setLink(isUp: isUp)
    }

    /// The interface with an address. Of several (ipvlan's have their parent's) one whose tap is gone comes first, as it is the
    /// one that the host has removed.
    private func index(of hardwareAddress: [UInt8]) throws(MachineError) -> Int {
        let candidates = networks.indices.filter { networks[$0].hardwareAddress == hardwareAddress }
        guard let index = candidates.first(where: { !networks[$0].backend.isLinkUp }) ?? candidates.first else {
            throw MachineError("the machine has no network interface \(Self.text(hardwareAddress))")
        }
        return index
    }
}

// MARK: - Disks

extension MachineDevices {
    /// Adds a disk, before the boot or to the running machine.
    func addBlock(
        _ files: DiskFiles<SharedDescriptor>, readOnly: Bool, id: String, queues: Int
    ) throws -> BlockBackend {
        let backend = try BlockBackend(
            BlockSource(files), readOnly: readOnly, id: id, queues: queues, rings: rings, onBroken: broken("block"))
        guard vmm.state.isBooted else {
            earlyDisks.append((id, backend))
            return backend
        }
        guard !disks.contains(where: { $0.id == id }) else {
            throw MachineError("the machine has a disk \(id) already")
        }
        let slot = try vmm.plugVirtio(deviceID: DeviceKind.block.id, backend, onFailure: broken("block"))
        disks.append(Disk(id: id, slot: slot, backend: backend))
        return backend
    }

    /// Gives a machine that boots the disks that were added before.
    func placeDisks() throws {
        for disk in earlyDisks { try add(.block, disk.backend) }
        earlyDisks = []
    }

    /// Puts the disks that were added before the start where the machine had them when it was saved.
    ///
    /// - Throws: `MachineError` where one is missing or has another size, or there is one too many.
    func placeDisks(_ places: [MachineSnapshot.Disk]) throws {
        for place in places {
            let name = String(decoding: place.serial.prefix { $0 != 0 }, as: UTF8.self)
            guard let index = earlyDisks.firstIndex(where: { $0.backend.savedState == place.serial }) else {
                throw MachineError("the state has a disk \(printable(name)), which is missing")
            }
            let (id, backend) = earlyDisks.remove(at: index)
            guard backend.configuration == place.configuration else {
                throw MachineError("disk \(id) has another size than it had, or another number of queues")
            }
            try vmm.addVirtio(deviceID: DeviceKind.block.id, backend, slot: place.slot, onFailure: broken("block"))
            disks.append(Disk(id: id, slot: place.slot, backend: backend))
        }
        if let first = earlyDisks.first {
            throw MachineError("the machine is to start with a disk \(first.id), which the state does not have")
        }
    }

    /// Takes a disk away that was added to the running machine, or that a restored one had.
    ///
    /// - Parameter done: its slot is free.
    func removeBlock(id: String, _ done: @escaping @Sendable () -> Void) throws {
        guard let index = disks.firstIndex(where: { $0.id == id }) else {
            throw MachineError("the machine has no disk \(id) that could be taken away")
        }
        try vmm.unplugVirtio(slot: disks[index].slot, done)
        disks.remove(at: index)
    }
}

extension DeviceKind {
    /// The number of virtio (virtio 1.2, 5).
    fileprivate var id: UInt32 {
        switch self {
        case .network: 1
        case .block: 2
        case .console: 3
        case .entropy: 4
        case .balloon: 5
        case .vsock: 19
        case .memory: 24
        case .files: 26
        case .rootImage: 27
        }
    }
}
