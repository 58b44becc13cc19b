import AgentContract
import DeviceService
import LinuxSystem
import Machine
import VMMControl
import Virtio

/// One virtual machine, as the host asks for it over a control socket. Control socket, vsock, console and random numbers are on
/// this thread; vCPUs, disks and networks on others; files in another process.
final class MachineProcess {
    /// What the process is at.
    private enum Phase {
        /// The request `machine` has not come.
        case awaitingMachine
        case machine(VMM, MachineDevices)
        /// The host has closed the control socket.
        case closed
    }

    private let control: ControlSocket
    private let rings: RingPool
    private let loop: EventLoop
    private let tasks: LoopTasks
    private var phase = Phase.awaitingMachine

    /// - Parameter rings: for the machine's disks.
    init(_ control: ControlSocket, _ rings: RingPool) throws {
        self.control = control
        self.rings = rings
        loop = try EventLoop()
        tasks = try LoopTasks(loop)
    }

    /// Serves requests until the host closes the control socket.
    func run() throws {
        try loop.add(control.socket.raw, .readable) { [unowned self] _ in
            if !control.serve({ try self.handle($0, $1) }) { close() }
        }
        while true {
            switch phase {
            case .awaitingMachine: try loop.runOnce(timeoutMilliseconds: -1)
            case .machine(let vmm, let devices):
                try loop.runOnce(timeoutMilliseconds: Self.shorter(vmm.timeout, devices.timeout))
                devices.afterRound()
                vmm.afterRound()
            case .closed: return
            }
        }
    }

    /// The shorter of two timeouts in milliseconds, of which -1 has no limit.
    private static func shorter(_ one: Int32, _ other: Int32) -> Int32 {
        one < 0 ? other : other < 0 ? one : min(one, other)
    }

    private func close() {
        if case .machine(let vmm, _) = phase { vmm.stop() }
        phase = .closed
    }

    private func machine() throws(MachineError) -> (VMM, MachineDevices) {
        guard case .machine(let vmm, let devices) = phase else { throw MachineError("there is no machine yet") }
        return (vmm, devices)
    }

    // MARK: Requests

    /// What a state is called in errors.
    private static let state = "machine state"

    private func handle(_ sequence: UInt64, _ request: ControlRequest<SharedDescriptor>) throws -> ControlReply? {
        switch request {
        case .machine(let kvm, let memory, let layout): try make(kvm, memory, layout)
        case .addRootImage(let file): try machine().1.addRootImage(file)
        case .addConsole(let output, .serial): try machine().0.addSerialPort(output: output)
        case .addConsole(let output, .virtio): try machine().1.addConsole(output)
        case .addEntropy: try machine().1.addEntropy()
        case .addBalloon(let reportsFreePages): try machine().1.addBalloon(reportsFreePages: reportsFreePages)
        case .setBalloon(let bytes): try machine().1.setBalloon(bytes: bytes)
        case .addMemory: try machine().1.addMemory()
        case .setMemory(let bytes): try machine().1.setMemory(bytes: bytes)
        case .setVCPUs(let count): try machine().0.setVCPUs(Int(count))
        case .addVsock(let guestCID): try machine().1.addVsock(guestCID: guestCID)
        case .addFiles(let vhostUser, let tag): try machine().1.addFiles(tag: tag, socket: vhostUser)
        case .addRelayedFiles(let relay, let tag): try machine().1.addRelayedFiles(tag: tag, relay)
        case .addBlock(let files, let readOnly, let id, let queues):
            return .disk(try machine().1.addBlock(files, readOnly: readOnly, id: id, queues: Int(queues)))
        case .removeBlock(let id):
            try machine().1.removeBlock(id: id) { [control] in control.reply(sequence, .done) }
            return nil
        case .boot(let kernel, let initramfs, let commandLine):
            try machine().1.placeNetworks([])
            try machine().1.placeDisks()
            let image = BootImage(kernel: kernel, initramfs: initramfs, commandLine: Array(commandLine.utf8))
            return .booted(firstInstruction: try machine().0.boot(image))
        case .restore(let state, let resetsConnections):
            let bytes = try readState(state, Self.state, atMost: MachineSnapshot.maximumSize)
            return .booted(firstInstruction: try restore(MachineSnapshot(bytes), resetsConnections))
        case .save(let state, let memory):
            let (vmm, devices) = try machine()
            let snapshot = try vmm.save(memory: memory.raw, hotplugged: devices.hotplugged)
            return try writeState(snapshot.encoded(), to: state, Self.state)
        case .pressPowerButton: try machine().0.pressPowerButton()
        case .pause:
            try machine().0.pause { [control] in control.reply(sequence, ControlReply($0)) }
            return nil
        case .resume: try machine().0.resume()
        case .addNetwork(let queues, let hardwareAddress):
            try machine().1.addNetwork(hardwareAddress: hardwareAddress, tap: queues)
        case .removeNetwork(let hardwareAddress):
            try machine().1.removeNetwork(hardwareAddress: hardwareAddress) { [control] in
                control.reply(sequence, .done)
            }
            return nil
        case .setNetworkLink(let hardwareAddress, let isUp):
            try machine().1.setNetworkLink(hardwareAddress: hardwareAddress, isUp: isUp)
        case .connect(let port, let stream, let timeout):
            let (vmm, devices) = try machine()
            guard let vsock = devices.vsock, vmm.state.isBooted else { return .notReady }
            vsock.connect(sequence, port: port, stream, timeout: timeout)
            return nil
        case .statistics: return .statistics(try machine().1.statistics())
        case .startVsock, .startFiles, .startRelayedFiles, .startBlock, .addShare, .removeShare, .saveFiles,
            .restoreFiles:
            throw RequestError.notServed(request)
        }
        return .done
    }

    private func make(_ kvm: SharedDescriptor, _ memory: SharedDescriptor, _ layout: MachineLayout) throws {
        guard case .awaitingMachine = phase else { throw MachineError("the machine is made already") }
        let reporter = EndReporter(control)
        let vmm = try VMM(
            KVM(device: kvm), map: MemoryMap(size: layout.memoryBytes, hotplug: layout.hotplugBytes),
            memoryFile: memory, isPrivate: layout.isPrivate, vcpus: Int(layout.vcpus),
            maximumVCPUs: Int(layout.maximumVCPUs), cpu: layout.cpu, loop: tasks,
            onEnd: { reporter.report($0) })
        phase = .machine(vmm, MachineDevices(vmm, control, loop, reporter, rings))
        try addDoorbell(to: vmm)
    }

    /// - Returns: the monotonic time in nanoseconds just before the guest went on.
    private func restore(_ snapshot: MachineSnapshot, _ resetsConnections: Bool) throws -> UInt64 {
        let (vmm, devices) = try machine()
        try devices.placeNetworks(snapshot.networks)
        try devices.placeDisks(snapshot.disks)
        // The agent listened when the state was saved.
        let ready = { [control] in control.report(.ready) }
        return try vmm.restore(snapshot) {
            try devices.provideRestoredMemory()
            guard resetsConnections, let vsock = devices.vsock else { return ready() }
            vsock.backend.sendTransportReset(ready)
        }
    }

    /// Reports to the host that the agent is ready, when the agent says so.
    private func addDoorbell(to vmm: VMM) throws {
        let bell = try vmm.vm.addDoorbell(port: AgentDoorbell.port, value: AgentDoorbell.ready)
        try loop.add(bell.raw, .readable) { [loop, control] _ in
            // Once: a guest that rings without end gets no more of this thread.
            loop.remove(bell.raw)
            control.report(.ready)
        }
    }
}

extension ControlReply {
    init(_ result: Result<Void, MachineError>) {
        switch result {
        case .success: self = .done
        case .failure(let error): self = .failed(reason: "\(error)")
        }
    }
}
