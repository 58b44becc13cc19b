import Glibc
import GuestKernel
import LinuxSystem
public import Logging
import VMMControl

/// Runs virtual machines with QEMU: with KVM where the processor has it, with software emulation (TCG) elsewhere.
public struct QEMUDriver: HypervisorDriver {
    /// How QEMU runs the guest's instructions.
    public enum Accelerator: String, Sendable, Codable {
        case kvm, tcg

        /// The CPU model, as `-cpu` takes it. In software, string instructions go byte by byte, so the guest must not see them
        /// announced as the quick way to copy and to clear (ERMS, FSRM): the others are several times as quick.
        ///
        /// - Parameter cpu: what the guest sees of it.
        func cpuModel(_ cpu: GuestCPU) -> String {
            ([self == .kvm ? "host" : "max"] + hiddenFeatures(cpu).map { "-\($0)" }).joined(separator: ",")
        }

        /// What the CPU has and the guest does not see, by QEMU's names.
        func hiddenFeatures(_ cpu: GuestCPU) -> [String] {
            (self == .kvm ? [] : ["erms", "fsrm"]) + (cpu.nested ? [] : ["vmx", "svm"])
                + cpu.profile.hidden.filter { !Self.unknown.contains($0) }.map {
                    $0.replacing("_", with: Self.together.contains($0) ? "" : "-")
                }
        }

        /// Names that QEMU writes without a hyphen.
        private static let together: Set = ["avx512_bitalg", "avx512_vbmi2", "avx512_vnni"]

        /// Instruction sets that QEMU 7.2 does not know; it shows no guest what it does not know.
        private static let unknown: Set = ["prefetchwt1", "avx_ifma", "avx_vnni_int8", "avx_ne_convert", "prefetchiti"]

        /// What a profile promises and the guest can't have.
        func missing(of profile: GuestCPU.Profile) -> [String] {
            switch self {
            case .kvm: profile.missingHere
            // TCG has the sets of the third level, on any host.
            case .tcg: profile == .level4 ? ["AVX-512"] : []
            }
        }
    }

    public let name = "qemu"
    package let executable: String
    package let accelerator: Accelerator
    package let hasVhostNet: Bool
    let logger: Logger

    /// - Parameters:
    ///   - executable: absolute path of qemu-system-x86_64.
    ///   - hasVhostNet: the host's kernel moves the frames of network interfaces.
    public init(executable: String, accelerator: Accelerator, hasVhostNet: Bool = false, logger: Logger) {
        self.executable = executable
        self.accelerator = accelerator
        self.hasVhostNet = hasVhostNet
        self.logger = logger
    }

    public func launch(_ configuration: VMConfiguration) throws -> any VirtualMachine {
        _ = try KernelImage.inspect(configuration.kernel)
        return try QEMUMachine(self, configuration)
    }

    /// What QEMU's process inherits: sockets, each for a channel or a device.
    enum Socket: Hashable, Sendable {
        case monitor, console, vsock, files

        /// The name of QEMU's chardev.
        var id: String {
            switch self {
            case .monitor: "monitor"
            case .console: "console"
            case .vsock: "vsock"
            case .files: "files"
            }
        }
    }

    static func descriptors(_ vm: VMConfiguration) -> InheritedDescriptors<Socket> {
        .init(roles: [.monitor, .console, .vsock] + (vm.hasFiles ? [.files] : []))
    }

    /// The name of the balloon's device.
    static let balloonID = "balloon"

    /// Without leave to report free pages the guest's driver has no queue for it.
    private static func balloonArguments(_ vm: VMConfiguration) -> [String] {
        let reporting = vm.reportsFreePages ? "on" : "off"
        return ["-device", "virtio-balloon-pci,id=\(balloonID),deflate-on-oom=on,free-page-reporting=\(reporting)"]
    }

    /// How many network interfaces and disks a machine can have at a time: each takes a root port of its own.
    static let slotCount = 8

    static func slotID(_ index: Int) -> String { "slot\(index)" }

    /// The slots. Those that libvirt makes have the chassis numbers from 1 on.
    static var slotArguments: [String] {
        (0..<slotCount).flatMap { ["-device", "pcie-root-port,id=\(slotID($0)),chassis=\($0 + 101)"] }
    }

    /// QEMU's command line, without the program's own name.
    func arguments(_ vm: VMConfiguration) -> [String] {
        let descriptors = Self.descriptors(vm)
        func socket(_ role: Socket) -> [String] { Self.socket(role.id, descriptors.number(of: role)) }
        return machineArguments(vm) + socket(.monitor) + ["-mon", "chardev=monitor,mode=control"]
            + Self.consoleArguments(descriptor: descriptors.number(of: .console))
            + socket(.vsock) + ["-device", "vhost-user-vsock-pci,chardev=vsock"]
            + (vm.hasFiles ? Self.filesArguments(descriptor: descriptors.number(of: .files)) : [])
            + Self.balloonArguments(vm) + QEMUMemory.arguments(vm) + Self.slotArguments
    }

    /// The machine alone: what it boots, and a source of random numbers. The vhost-user devices live in other processes
    /// and need the guest's memory to be a shared memfd.
    package func machineArguments(_ vm: VMConfiguration) -> [String] {
        [
            "-name", "martlet-\(vm.name)", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine", "q35,memory-backend=memory,usb=off,smbus=off,vmport=off,sata=off",
            "-accel", accelerator == .tcg && vm.maximumVCPUs > 1 ? "tcg,thread=multi" : accelerator.rawValue,
            "-cpu", accelerator.cpuModel(vm.cpu),
            "-smp", QEMUProcessors.argument(vm),
            "-object", "memory-backend-memfd,id=memory,size=\(vm.memoryMiB)M,share=on",
            "-kernel", vm.kernel, "-append", vm.bootArguments.joined(separator: " "), "-device", "virtio-rng-pci",
        ] + Self.memoryArguments(vm) + Self.rootImageArguments(vm) + (vm.bootInitramfs.map { ["-initrd", $0] } ?? [])
    }

    /// A serial port that is the socket `descriptor` of QEMU's process.
    package static func consoleArguments(descriptor: Int) -> [String] {
        socket("console", descriptor) + ["-serial", "chardev:console"]
    }

    /// A virtio console, `hvc0`, that is the socket `descriptor` of QEMU's process.
    package static func virtioConsoleArguments(descriptor: Int) -> [String] {
        socket("console", descriptor) + ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console"]
    }

    /// A file device whose server is at the other end of the socket `descriptor` of QEMU's process.
    package static func filesArguments(descriptor: Int) -> [String] {
        socket("files", descriptor) + ["-device", "vhost-user-fs-pci,chardev=files,tag=martlet,queue-size=512"]
    }

    /// A disk that the process at the other end of the socket `descriptor` of QEMU's process serves.
    package static func diskArguments(descriptor: Int, queues: Int) -> [String] {
        socket("disk", descriptor) + ["-device", "vhost-user-blk-pci,chardev=disk,num-queues=\(queues)"]
    }

    private static func socket(_ id: String, _ descriptor: Int) -> [String] {
        ["-chardev", "socket,id=\(id),fd=\(descriptor)"]
    }
}
