public import Logging
public import VMMControl

/// Which driver a host gets, and why, in one line.
public enum DriverChoice: Sendable, Equatable, CustomStringConvertible {
    /// The built-in VMM on KVM.
    case builtIn(reason: String)
    /// QEMU at an absolute path. `vhostNet`: the host's kernel moves the frames of network interfaces.
    case qemu(accelerator: QEMUDriver.Accelerator, executable: String, vhostNet: Bool = false, reason: String)
    /// QEMU as libvirt's domain. `uri`: of the libvirtd.
    case libvirt(
        uri: String, accelerator: QEMUDriver.Accelerator, executable: String, vhostNet: Bool = false, reason: String)

    public var description: String {
        switch self {
        case .builtIn(let reason): "the built-in VMM: \(reason)"
        case .qemu(let accelerator, _, _, let reason): "qemu with \(accelerator.rawValue): \(reason)"
        case .libvirt(let uri, let accelerator, _, _, let reason):
            "libvirt at \(uri), qemu with \(accelerator.rawValue): \(reason)"
        }
    }

    /// As in the configuration: `kvm`, `qemu`, `libvirt`.
    public var name: String {
        switch self {
        case .builtIn: "kvm"
        case .qemu: "qemu"
        case .libvirt: "libvirt"
        }
    }

    public var isBuiltIn: Bool { if case .builtIn = self { true } else { false } }

    /// Checks that guests can have the instruction sets that a profile promises.
    ///
    /// - Throws: `HypervisorError` with those that are missing.
    public func check(_ profile: GuestCPU.Profile) throws(HypervisorError) {
        let missing =
            switch self {
            case .builtIn: profile.missingHere
            case .qemu(let accelerator, _, _, _), .libvirt(_, let accelerator, _, _, _):
                accelerator.missing(of: profile)
            }
        if missing.isEmpty { return }
        throw HypervisorError("vm.cpu: \(profile.rawValue): guests can't have \(missing.joined(separator: ", ")) here")
    }

    /// QEMU as it was chosen; nil for another driver.
    public func qemuDriver(logger: Logger) -> QEMUDriver? {
        makeDriver(logger: logger) as? QEMUDriver
    }

    /// The driver.
    public func makeDriver(logger: Logger) -> any HypervisorDriver {
        switch self {
        case .builtIn: return KVMDriver(logger: logger)
        case .qemu(let accelerator, let executable, let vhostNet, _):
            return QEMUDriver(executable: executable, accelerator: accelerator, hasVhostNet: vhostNet, logger: logger)
        case .libvirt(let uri, let accelerator, let executable, let vhostNet, _):
            return LibvirtDriver(
                uri: uri,
                QEMUDriver(executable: executable, accelerator: accelerator, hasVhostNet: vhostNet, logger: logger))
        }
    }
}

/// One object: `driver` as in the configuration, then what belongs to it.
extension DriverChoice: Codable {
    private enum Key: String, CodingKey { case driver, uri, accelerator, executable, vhostNet, reason }
    private enum Name: String, Codable { case kvm, qemu, libvirt }

    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        let reason = try fields.decode(String.self, forKey: .reason)
        switch try fields.decode(Name.self, forKey: .driver) {
        case .kvm: self = .builtIn(reason: reason)
        case .qemu:
            self = .qemu(
                accelerator: try fields.decode(QEMUDriver.Accelerator.self, forKey: .accelerator),
                executable: try fields.decode(String.self, forKey: .executable),
                vhostNet: try fields.decodeIfPresent(Bool.self, forKey: .vhostNet) ?? false, reason: reason)
        case .libvirt:
            self = .libvirt(
                uri: try fields.decode(String.self, forKey: .uri),
                accelerator: try fields.decode(QEMUDriver.Accelerator.self, forKey: .accelerator),
                executable: try fields.decode(String.self, forKey: .executable),
                vhostNet: try fields.decode(Bool.self, forKey: .vhostNet), reason: reason)
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: Key.self)
        switch self {
        case .builtIn(let reason):
            try fields.encode(Name.kvm, forKey: .driver)
            try fields.encode(reason, forKey: .reason)
        case .qemu(let accelerator, let executable, let vhostNet, let reason):
            try fields.encode(Name.qemu, forKey: .driver)
            try fields.encode(accelerator, forKey: .accelerator)
            try fields.encode(executable, forKey: .executable)
            try fields.encode(vhostNet, forKey: .vhostNet)
            try fields.encode(reason, forKey: .reason)
        case .libvirt(let uri, let accelerator, let executable, let vhostNet, let reason):
            try fields.encode(Name.libvirt, forKey: .driver)
            try fields.encode(uri, forKey: .uri)
            try fields.encode(accelerator, forKey: .accelerator)
            try fields.encode(executable, forKey: .executable)
            try fields.encode(vhostNet, forKey: .vhostNet)
            try fields.encode(reason, forKey: .reason)
        }
    }
}

extension HostFacts {
    /// Whether an ordinary Linux guest runs on this /dev/kvm, or why not. One that opens on a CPU without vmx and svm is a
    /// paravirtual KVM that runs tiny guests and hangs Linux.
    public var kvmObjection: String? {
        if case .unusable(let reason) = kvm { return reason }
        guard case .version(let version) = kvm, version == 12 else { return "/dev/kvm is not of API version 12" }
        return virtualization == nil ? "/dev/kvm opens, but the processor has neither vmx nor svm" : nil
    }

    /// The driver for what the configuration asks for: the built-in VMM where KVM runs Linux, else QEMU.
    ///
    /// - Parameters:
    ///   - driver: `auto`, `kvm`, `qemu` or `libvirt`.
    ///   - accelerator: of QEMU: `auto`, `kvm` or `tcg`.
    ///   - vhostNet: of QEMU: whether the host's kernel is to move the frames of network interfaces.
    ///   - libvirtURI: of the libvirtd that runs QEMU.
    /// - Throws: a reason why the host can't.
    public func chooseDriver(
        _ driver: String, accelerator: String, vhostNet: Bool = false, libvirtURI: String = LibvirtDriver.standardURI
    ) throws(HypervisorError) -> DriverChoice {
        switch (driver, kvmObjection) {
        case ("auto", nil): return .builtIn(reason: "the processor has \(virtualization ?? "it") and /dev/kvm opens")
        case ("kvm", nil): return .builtIn(reason: "as configured")
        case ("kvm", let objection?): throw HypervisorError("hypervisor is \"kvm\", but \(objection)")
        case ("auto", _), ("qemu", _): return try chooseQEMU(accelerator, vhostNet: vhostNet)
        case ("libvirt", _):
            if let objection = LibvirtDriver.objection { throw HypervisorError("hypervisor \"libvirt\" \(objection)") }
            guard
                case .qemu(let accelerator, let executable, let vhostNet, let reason) = try chooseQEMU(
                    accelerator, vhostNet: vhostNet)
            else { throw HypervisorError("no QEMU for libvirt") }
            return .libvirt(
                uri: libvirtURI, accelerator: accelerator, executable: executable, vhostNet: vhostNet, reason: reason)
        default: throw HypervisorError("hypervisor: \"\(driver)\" is none of auto, kvm, qemu, libvirt")
        }
    }

    /// The absolute path of QEMU.
    public func qemuPath() throws(HypervisorError) -> String {
        switch qemu {
        case .present(let path, _): return path
        case .absent(let reason): throw HypervisorError("no QEMU: \(reason) (Debian: apt install qemu-system-x86)")
        }
    }

    private func chooseQEMU(_ accelerator: String, vhostNet: Bool) throws(HypervisorError) -> DriverChoice {
        let executable = try qemuPath()
        func choice(_ accelerator: QEMUDriver.Accelerator, _ reason: String) -> DriverChoice {
            .qemu(accelerator: accelerator, executable: executable, vhostNet: vhostNet, reason: reason)
        }
        switch (accelerator, kvmObjection) {
        case ("auto", nil), ("kvm", nil): return choice(.kvm, "as configured")
        case ("auto", let objection?):
            return choice(.tcg, "software emulation, five to twenty times slower, as \(objection)")
        case ("kvm", let objection?): throw HypervisorError("qemu.accel is \"kvm\", but \(objection)")
        case ("tcg", _): return choice(.tcg, "software emulation, as configured")
        default: throw HypervisorError("qemu.accel: \"\(accelerator)\" is none of auto, kvm, tcg")
        }
    }
}

extension DriverChoice {
    /// The arguments that the guest's kernel needs on this driver's machine.
    ///
    /// A panic resets the machine at once, which ends the VM; the console says only what matters. The guest has no
    /// interfaces but the pod's. Memory of each CPU comes in pages: in units of 2 MiB the kernel would take 4 MiB more, to note which
    /// cgroup has which part of it. Memory that is plugged is used at once, most of it in a way that lets it go again.
    public var kernelArguments: [String] {
        let all = [
            "quiet", "panic=-1", "dummy.numdummies=0", "percpu_alloc=page", "memhp_default_state=online",
            "memory_hotplug.online_policy=auto-movable",
        ]
        switch self {
        // No serial port, of which each byte is an exit, and no PCI bus to look for. A kernel with EFI support would restart
        // a hardware-reduced machine by EFI's services, then by a BIOS, neither of which is there.
        case .builtIn: return ["console=hvc0"] + all + ["pci=off", "reboot=a"]
        // The last two keep a guest that an emulator runs from doubting its timers (on a loaded host it would fall back to
        // slow ones).
        case .qemu: return ["console=ttyS0"] + all + ["reboot=t", "no_timer_check", "tsc=reliable"]
        // The first one is what virsh console shows.
        case .libvirt: return ["console=hvc0", "console=ttyS0"] + all + ["reboot=t", "no_timer_check", "tsc=reliable"]
        }
    }
}
