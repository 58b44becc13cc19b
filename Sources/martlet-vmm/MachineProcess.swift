import AgentContract
import DeviceService
import Glibc
import LinuxSystem
import Machine
import VMMControl
import VhostUser
import Virtio

/// One virtual machine: control socket, vsock, console and random numbers on this thread; processors, disks, networks and
/// files on others.
final class MachineProcess {
    private let control: ControlSocket
    private let loop: EventLoop
    private let tasks: LoopTasks
    private var board: VMM?
    private let outputTail: EndReporter
    private var vsock: VsockService?
    private var booted = false
    private var ended = false

    init(_ control: ControlSocket) throws {
        self.control = control
        outputTail = EndReporter(control)
        loop = try EventLoop()
        tasks = try LoopTasks(loop)
    }

    /// Returns when the control socket is closed.
    func run() throws {
        try loop.add(control.socket.raw, .readable) { [unowned self] _ in
            if !control.serve({ try self.handle($0, $1) }) { ended = true }
        }
        while !ended {
            try loop.runOnce(timeoutMilliseconds: vsock?.backend.timeout ?? -1)
            vsock?.backend.afterRound()
        }
    }

    private func handle(_ sequence: UInt64, _ request: ControlRequest<SharedDescriptor>) throws -> ControlReply? {
        switch request {
        case .machine(let kvm, let memory, let memoryBytes, let vcpus):
            try make(kvm: kvm, memory: memory, memoryBytes: memoryBytes, vcpus: vcpus)
        case .addConsole(let output, let kind): try addConsole(output, isSerial: kind == .serial)
        case .addEntropy: try add(.entropy, RNGBackend(loop: loop, onBroken: broken("rng")))
        case .addVsock(let guestCID): try addVsock(guestCID: guestCID)
        case .addFiles(let vhostUser, let tag): try addFiles(tag: tag, socket: vhostUser)
        case .addBlock(let file, let readOnly, let id): try addBlock(file, readOnly: readOnly, id: id)
        case .boot(let kernel, let initramfs, let commandLine):
            return try boot(
                BootImage(kernel: kernel, initramfs: initramfs, commandLine: Array(commandLine.utf8)))
        case .addNetwork(let queues, let hardwareAddress):
            try addNetwork(hardwareAddress: hardwareAddress, tap: queues)
        case .pressPowerButton: try unbooted(false).pressPowerButton()
        case .connect(let port, let stream, let timeout):
            guard let vsock, booted else { return .notReady }
            vsock.connect(sequence, port: port, stream, timeout: timeout)
            return nil
        // The device sees by itself that its tap is gone; its slot stays taken.
        case .removeNetwork: _ = try unbooted(false)
        case .pause, .resume, .setNetworkLink:
            throw MachineError("the request \(request.name) is not supported yet")
        case .startVsock, .startFiles, .startBlock, .addShare, .removeShare:
            throw RequestError.notServed(request)
        }
        return .done
    }

    // MARK: Building

    /// The kinds of devices (virtio 1.2, 5).
    private enum Kind: UInt32 {
        case network = 1
        case block = 2
        case console = 3
        case entropy = 4
        case vsock = 19
        case files = 26
    }

    private func make(
        kvm: SharedDescriptor, memory: SharedDescriptor, memoryBytes: UInt64, vcpus: UInt32
    ) throws {
        guard board == nil else { throw MachineError("the machine is made already") }
        board = try VMM(
            KVM(device: kvm), map: MemoryMap(size: memoryBytes), memoryFile: memory,
            processors: Int(vcpus), loop: tasks,
            onEnd: { [tasks, outputTail] end in tasks.post { outputTail.report(end) } })
        try addDoorbell()
    }

    /// Reports to the host that the agent is ready, when the agent says so.
    private func addDoorbell() throws {
        let bell = try board?.vm.addDoorbell(port: AgentDoorbell.port, value: AgentDoorbell.ready)
        guard let bell else { return }
        let control = control
        try loop.add(bell.raw, .readable) { [loop] _ in
            // Once: a guest that rings without end gets no more of this thread.
            loop.remove(bell.raw)
            control.report(.ready)
        }
    }

    /// The board, which must have been booted, or must not.
    private func unbooted(_ wanted: Bool = true) throws -> VMM {
        guard let board else { throw MachineError("there is no machine yet") }
        guard booted != wanted else { throw MachineError("the machine \(booted ? "runs" : "does not run yet")") }
        return board
    }

    @discardableResult
    private func add(_ kind: Kind, _ device: any BackendDevice, maximumSize: UInt32 = 256) throws -> VirtioTransport {
        try unbooted().addVirtio(
            deviceID: kind.rawValue, device, maximumSize: maximumSize, onFailure: broken("\(kind)"))
    }

    private func addConsole(_ output: SharedDescriptor, isSerial: Bool) throws {
        if isSerial { return try unbooted().addSerialPort(output: output) }
        let console = try ConsoleBackend(output: output, loop: loop, onBroken: broken("console"))
        try add(.console, console)
        outputTail.console = console
    }

    private func addVsock(guestCID: UInt64) throws {
        guard vsock == nil else { throw MachineError("the machine has a vsock device already") }
        let service = VsockService(
            guestCID: guestCID, queueCount: 3, control: control, loop: loop, onBroken: broken("vsock"))
        try add(.vsock, service.backend)
        vsock = service
    }

    private func addFiles(tag: String, socket: SharedDescriptor) throws {
        let device = try VhostUserFrontEnd(
            socket: socket, memory: try unbooted().vm.sharedMemory, queueCount: 2,
            configuration: .own(FileDevice.configuration(tag: tag, requestQueues: 1)))
        let broken = broken("files")
        try device.watch(loop) { broken("\($0)") }
        try add(.files, device, maximumSize: 512)
    }

    private func addBlock(_ file: SharedDescriptor, readOnly: Bool, id: String) throws {
        let device = try BlockBackend(
            file: file, readOnly: readOnly, id: id, onBroken: broken("block"))
        try add(.block, device)
    }

    private func addNetwork(hardwareAddress: [UInt8], tap: [SharedDescriptor]) throws {
        guard tap.count <= Tap.maximumQueues else {
            throw MachineError("a network interface of \(tap.count) queues: more than \(Tap.maximumQueues)")
        }
        let broken = broken("network")
        let device = try NetBackend(tap: tap, hardwareAddress: hardwareAddress, onBroken: broken)
        try unbooted(false).plugVirtio(deviceID: Kind.network.rawValue, device, onFailure: broken)
    }

    private func broken(_ name: String) -> @Sendable (String) -> Void {
        let control = control
        return { reason in control.reportBroken("\(name): \(reason)") }
    }

    // MARK: Running

    private func boot(_ image: BootImage) throws -> ControlReply {
        let time = try unbooted().boot(image)
        booted = true
        return .booted(firstInstruction: time)
    }
}

/// What is said when the machine has stopped. Belongs to the loop's thread.
private final class EndReporter: @unchecked Sendable {
    private let control: ControlSocket
    var console: ConsoleBackend?

    init(_ control: ControlSocket) { self.control = control }

    /// Lets the host have what the guest said last, then tells it of the end.
    func report(_ end: MachineEnd) {
        console?.finish(milliseconds: 200)
        let stop: MachineStop =
            switch end {
            case .poweredOff: .poweredOff
            case .reset: .reset
            case .tripleFault: .tripleFault
            case .unhandled: .unhandled
            }
        control.report(.ended(stop, reason: "\(end)"))
    }
}
