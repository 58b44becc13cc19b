import AgentContract
import CLinux
import Glibc
import LinuxSystem
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
    let processes: [(name: String, pid: Int32)]

    init(_ driver: KVMDriver, _ configuration: VMConfiguration) throws {
        let logger = driver.logger
        let watch = try MachineWatch(readyEvent: .ready, logger: logger)
        self.watch = watch
        var devices = DeviceProcesses(watch, user: configuration.user) { logger.debug("\($0)") }
        do {
            vsock = try devices.start("martlet-vmm", as: "machine")
            files = configuration.hasFiles ? try devices.start("martlet-device", "files", as: "files") : nil
            logger.phase("machine spawned")
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            console = try Console("guest console", source: ours) { logger.debug("guest: \($0)") }
            let time = try Self.build(vsock.client, files?.client, configuration, console: theirs.raw)
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

    /// Has the processes build the machine. Each request is sent without waiting for the one before; a failure of one is
    /// thrown first, as the others follow from it.
    ///
    /// - Returns: the monotonic time in nanoseconds of the guest's first instruction.
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
                kvm: kvm.raw, memory: memory.raw, bytes: UInt64(size), vcpus: UInt32(configuration.vcpus),
                nested: configuration.nested)
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
            replies.append(
                try files.startFiles(
                    vhostUser: deviceEnd.raw, tag: ShareDevice.tag,
                    memoryLimit: configuration.filesMemoryLimit, allowsDevices: configuration.allowsDeviceNodes))
            replies.append(try vmm.addFiles(vhostUser: machineEnd.raw, tag: ShareDevice.tag))
        }
        let arguments = configuration.kernelArguments + [AgentDoorbell.kernelArgument]
        let boot = try vmm.boot(
            kernel: kernel.raw, initramfs: initramfs?.raw, commandLine: arguments.joined(separator: " "))
        for reply in replies { try reply.wait() }
        guard case .booted(let firstInstruction) = try boot.wait() else {
            throw HypervisorError("martlet-vmm did not say when the guest began")
        }
        return firstInstruction
    }

    func pauseVCPUs() throws { try vsock.client.pause() }

    func resumeVCPUs() throws { try vsock.client.resume() }

    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {
        try vsock.client.addNetwork(queues: queues, hardwareAddress: hardwareAddress).wait()
    }

    func removeNetwork(hardwareAddress: [UInt8]) throws {
        try vsock.client.removeNetwork(hardwareAddress: hardwareAddress)
    }
}
