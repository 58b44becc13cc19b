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
    private var commandLine: [UInt8] = []
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
        try loop.add(control.socket.raw, .readable) { [unowned self] _ in receive() }
        while !ended {
            try loop.runOnce(timeoutMilliseconds: vsock?.backend.timeout ?? -1)
            vsock?.backend.afterRound()
        }
    }

    private func receive() {
        do {
            guard let (message, descriptors) = try control.receive() else {
                ended = true
                return
            }
            do {
                try handle(message, descriptors)
            } catch {
                control.reply(message.sequence, .failed, "\(error)")
            }
        } catch {
            logError("\(error)")
            ended = true
        }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) throws {
        switch (message.kind, descriptors.count) {
        case (.machine, 2): try make(message, kvm: descriptors[0], memory: descriptors[1])
        case (.commandLine, 0): commandLine += Array(message.text.utf8)
        case (.addConsole, 1): try addConsole(descriptors[0], isSerial: message.flags & ControlMessage.serial != 0)
        case (.addEntropy, 0): try add(.entropy, RNGBackend(loop: loop, onBroken: broken("rng")))
        case (.addVsock, 0): try addVsock(guestCID: message.number)
        case (.addFiles, 1): try addFiles(tag: message.text, socket: descriptors[0])
        case (.addBlock, 1): try addBlock(message, descriptors[0])
        case (.boot, 1...2): return try boot(message, descriptors)
        case (.addNetwork, 1...Tap.maximumQueues):
            try addNetwork(hardwareAddress: message.number, tap: descriptors)
        case (.powerButton, 0): try unbooted(false).pressPowerButton()
        case (.connect, 1): return connect(message, descriptors[0])
        default:
            return control.refuse(message, descriptors.count)
        }
        control.reply(message.sequence)
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

    private func make(_ message: ControlMessage, kvm: SharedDescriptor, memory: SharedDescriptor) throws {
        guard board == nil else { throw MachineError("the machine is made already") }
        board = try VMM(
            KVM(device: kvm), map: MemoryMap(size: message.number), memoryFile: memory,
            processors: Int(message.port), loop: tasks,
            onEnd: { [tasks, outputTail] end in tasks.post { outputTail.report(end) } })
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

    private func addBlock(_ message: ControlMessage, _ file: SharedDescriptor) throws {
        let device = try BlockBackend(
            file: file, readOnly: message.flags & ControlMessage.readOnly != 0, id: message.text,
            onBroken: broken("block"))
        try add(.block, device)
    }

    private func addNetwork(hardwareAddress: UInt64, tap: [SharedDescriptor]) throws {
        let bytes = (0..<6).map { UInt8(truncatingIfNeeded: hardwareAddress >> (8 * UInt64($0))) }
        let broken = broken("network")
        let device = try NetBackend(tap: tap, hardwareAddress: bytes, onBroken: broken)
        try unbooted(false).plugVirtio(deviceID: Kind.network.rawValue, device, onFailure: broken)
    }

    private func broken(_ name: String) -> @Sendable (String) -> Void {
        let control = control
        return { reason in control.reportBroken("\(name): \(reason)") }
    }

    // MARK: Running

    private func boot(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) throws {
        let image = BootImage(
            kernel: descriptors[0], initramfs: descriptors.count > 1 ? descriptors[1] : nil, commandLine: commandLine)
        var reply = ControlMessage(.reply, sequence: message.sequence)
        reply.number = try unbooted().boot(image)
        booted = true
        control.deliver(reply)
    }

    private func connect(_ message: ControlMessage, _ stream: SharedDescriptor) {
        guard let vsock, booted else { return control.reply(message.sequence, .notReady) }
        vsock.connect(message, stream)
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
        var message = ControlMessage(.ended)
        let kind: ControlMessage.End =
            switch end {
            case .poweredOff: .poweredOff
            case .reset: .reset
            case .tripleFault: .tripleFault
            case .unhandled: .unhandled
            }
        message.number = kind.rawValue
        message.text = "\(end)"
        control.deliver(message)
    }
}
