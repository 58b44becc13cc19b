import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import VMMControl

/// The guest on the built-in VMM, with one disk. `martlet-vmm` has the disk from the start on, because nothing in this guest looks
/// for devices that come later.
final class BuiltInGuest {
    /// How the disk is served.
    let mode: DiskMode
    private let vmm: DeviceProcess
    private let console: Console
    private let stopped: Promise<String?>

    init(_ plan: DiskRun.Plan, _ record: DiskRun.Record) throws {
        let machine = plan.machine([.builtIn])
        let stopped = try Promise<String?>()
        self.stopped = stopped
        let log: @Sendable (String) -> Void = { record.log("martlet-vmm: \($0)") }
        let onEvent: @Sendable (ControlEvent) -> Void = { event in
            switch event {
            case .ended(.poweredOff, _): stopped.settle(nil)
            case .ended(let stop, let reason): stopped.settle("the machine stopped: \(stop) \(reason)")
            case .broken(let reason): stopped.settle(reason)
            case .started, .ready: break
            }
        }
        vmm = try DeviceProcess("martlet-vmm", log: log, onEvent: onEvent)
        do {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            console = try Console("guest console", source: ours) { record.take($0) }
            mode = try Self.build(vmm.client, machine, path: plan.path, console: theirs)
        } catch {
            vmm.child.signal(SIGKILL)
            throw error
        }
    }

    /// - Returns: how the disk is served.
    private static func build(
        _ vmm: ControlClient, _ machine: VMConfiguration, path: String, console: SharedDescriptor
    ) throws -> DiskMode {
        let bytes = Int64(machine.memoryMiB) << 20
        let kvm = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
        let memory = try OwnedDescriptor.memory("bench", size: bytes)
        try vmm.makeMachine(
            kvm: kvm.raw, memory: memory.raw,
            MachineLayout(memoryBytes: UInt64(bytes), vcpus: UInt32(machine.vcpus))
        ).wait()
        try vmm.addConsole(output: console.raw, kind: .virtio).wait()
        try vmm.addEntropy().wait()
        let file = try OwnedDescriptor.open(path, O_RDWR)
        let mode = try DiskMode(
            vmm.addBlock(
                files: DiskFiles(file.raw), readOnly: false, id: DiskSide.builtIn.serial,
                queues: Disk.queues(vcpus: machine.vcpus)
            ).wait())
        let kernel = try OwnedDescriptor.open(machine.kernel, O_RDONLY)
        let initramfs = try machine.initramfs.map { SharedDescriptor(try OwnedDescriptor.open($0, O_RDONLY)) }
        try vmm.boot(
            kernel: kernel.raw, initramfs: initramfs?.raw, commandLine: commandLine(machine)
        ).wait()
        return mode
    }

    /// What QEMU's guest has, and what the built-in VMM needs beside it.
    private static func commandLine(_ machine: VMConfiguration) -> String {
        (["pci=off", "reboot=a"] + machine.kernelArguments).joined(separator: " ")
    }

    /// Waits until the guest has powered off.
    func phases(within timeout: Duration, _ record: DiskRun.Record) throws -> [PhaseRecorder.Phase] {
        let end = stopped.wait(timeout: timeout) ?? "did not end within \(timeout)"
        console.waitForEnd(timeout: .seconds(1))
        return try record.phases(end: end, console: console)
    }

    /// Ends the machine if it still runs.
    func end() {
        vmm.child.signal(SIGKILL)
        _ = vmm.child.waitForEnd(timeout: .seconds(5))
    }
}
