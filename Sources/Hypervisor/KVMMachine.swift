import CLinux
import Glibc
import LinuxSystem
import VMMControl

/// A VM that `martlet-vmm` runs, with a device process for files.
///
/// Everything that these may touch is opened here and handed over as a descriptor.
final class KVMMachine: VirtualMachine {
    private let vmm: DeviceProcess
    private let files: DeviceProcess?
    let console: Console
    private let watch: MachineWatch

    init(_ driver: KVMDriver, _ configuration: VMConfiguration) throws {
        let logger = driver.logger
        let log: @Sendable (String) -> Void = { logger.debug("\($0)") }
        let watch = try MachineWatch()
        self.watch = watch
        let vmm = try DeviceProcess("martlet-vmm", log: log) { watch.take($0, from: "machine") }
        self.vmm = vmm
        do {
            files =
                configuration.hasFiles
                ? try DeviceProcess("martlet-device", "files", log: log) { watch.take($0, from: "files") } : nil
        } catch {
            MachineWatch.abandon([vmm.child])
            throw error
        }
        logger.phase("machine spawned")
        let children = [vmm.child] + (files.map { [$0.child] } ?? [])
        do {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            console = try Console("guest console", source: ours) { watch.guest($0, logger) }
            let time = try Self.build(vmm.client, files?.client, configuration, console: theirs.raw)
            logger.phase("first instruction", at: time)
        } catch DeviceError.closed {
            MachineWatch.abandon(children)
            let words = [vmm.outputTail(), files?.outputTail() ?? ""].filter { !$0.isEmpty }.joined(separator: "; ")
            throw HypervisorError("a process of the machine ended at its start: \(words)")
        } catch {
            MachineWatch.abandon(children)
            throw error
        }
        watch.begin(children) { [self] in cause($0) }
    }

    /// Has the processes build the machine. Each request is sent without waiting for the one before; a failure of one is
    /// told first, as the others follow from it. Answers the time of the guest's first instruction.
    private static func build(
        _ vmm: ControlClient, _ files: ControlClient?, _ configuration: VMConfiguration, console: Int32
    ) throws -> UInt64 {
        let kvm = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
        let size = Int64(configuration.memoryMiB) << 20
        let name = "martlet-\(configuration.name)"
        let memory =
            configuration.hugePages
            ? try OwnedDescriptor.hugeMemory(name, size: size) : try OwnedDescriptor.memory(name, size: size)
        let kernel = try OwnedDescriptor.open(configuration.kernel, O_RDONLY)
        let initramfs = try configuration.initramfs.map { SharedDescriptor(try OwnedDescriptor.open($0, O_RDONLY)) }
        var replies = [
            try vmm.makeMachine(
                kvm: kvm.raw, memory: memory.raw, bytes: UInt64(size), vcpus: UInt32(configuration.vcpus))
        ]
        replies.append(try vmm.addConsole(output: console, kind: .virtio))
        if configuration.debugConsole { replies.append(try vmm.addConsole(output: console, kind: .serial)) }
        replies.append(try vmm.addEntropy())
        replies.append(try vmm.addVsock(guestCID: configuration.guestCID))
        for disk in configuration.disks {
            let file = try disk.open()
            replies.append(try vmm.addBlock(file: file.raw, readOnly: disk.readOnly, id: disk.id))
        }
        if let files {
            let (machineEnd, deviceEnd) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let proc = try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY)
            replies.append(try files.startFiles(vhostUser: deviceEnd.raw, tag: "martlet", proc: proc.raw))
            replies.append(try vmm.addFiles(vhostUser: machineEnd.raw, tag: "martlet"))
        }
        let boot = try vmm.boot(
            kernel: kernel.raw, initramfs: initramfs?.raw,
            commandLine: configuration.kernelArguments.joined(separator: " "))
        for reply in replies { try reply.wait() }
        guard case .booted(let firstInstruction) = try boot.wait() else {
            throw HypervisorError("martlet-vmm did not say when the guest began")
        }
        return firstInstruction
    }

    var processes: [(name: String, pid: Int32)] {
        ([vmm] + (files.map { [$0] } ?? [])).map { ($0.child.name, $0.child.pid) }
    }

    func agentReady(within limit: Duration) async throws { try await watch.agentReady(within: limit) }

    func addShare(name: String, tree: Int32, readOnly: Bool) throws {
        try shares().addShare(name: name, directory: tree, readOnly: readOnly)
    }

    func removeShare(name: String) throws { try shares().removeShare(name: name) }

    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {
        try vmm.client.addNetwork(queues: queues, hardwareAddress: hardwareAddress).wait()
    }

    func removeNetwork(hardwareAddress: [UInt8]) throws {
        try vmm.client.removeNetwork(hardwareAddress: hardwareAddress)
    }

    private func shares() throws(HypervisorError) -> ControlClient {
        guard let files else { throw HypervisorError("the machine has no file device") }
        return files.client
    }

    func connect(port: UInt32, stream: Int32, deadline: Duration) throws {
        try vmm.client.connect(port: port, stream: stream, deadline: deadline)
    }

    func kill(_ reason: VMEnd) { watch.sign(reason) }

    func end() async -> VMEnd { await watch.end() }

    /// The most telling of the signs: what the host decided, then a process that was killed, then what the guest did to
    /// itself, then what failed under it, then a process that ended by itself.
    private func cause(_ signs: [VMEnd]) -> VMEnd {
        console.waitForEnd(timeout: .seconds(1))
        if let sign = signs.decided ?? signs.killed { return sign }
        if let panic = console.panic { return .guestCrashed(panic) }
        let own = signs.first { if case .processEnded = $0 { false } else { true } }
        if let own { return own }
        guard case .processEnded(let name, let how)? = signs.first else { return .ended("for no reason that was seen") }
        let words = (name == vmm.child.name ? vmm : files)?.outputTail() ?? ""
        return .processEnded(name: name, how: how + (words.isEmpty ? "" : ": \(words)"))
    }
}
