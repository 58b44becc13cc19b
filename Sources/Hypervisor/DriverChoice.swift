/// Which driver a host gets, and why.
public struct DriverChoice: Sendable, Equatable, Codable, CustomStringConvertible {
    /// As in the configuration: `kvm`, `qemu`.
    public var driver: String
    /// What runs the guest's instructions: `kvm` or `tcg`.
    public var accelerator: String
    /// Absolute path of a hypervisor that is not Martlet's own.
    public var executable: String?
    /// One line.
    public var reason: String

    public var description: String {
        "\(driver == "kvm" ? "the built-in VMM" : "\(driver) with \(accelerator)"): \(reason)"
    }
}

extension HostFacts {
    /// Whether an ordinary Linux guest runs on this /dev/kvm, or why not. One that opens on a processor without vmx
    /// and svm is a paravirtual KVM that runs tiny guests and hangs Linux.
    public var kvmObjection: String? {
        if case .unusable(let reason) = kvm { return reason }
        guard case .version(let version) = kvm, version == 12 else { return "/dev/kvm is not of API version 12" }
        return virtualization == nil ? "/dev/kvm opens, but the processor has neither vmx nor svm" : nil
    }

    /// The driver for what the configuration asks for: the built-in VMM where KVM runs Linux, else QEMU.
    ///
    /// - Parameters:
    ///   - driver: `auto`, `kvm` or `qemu`.
    ///   - accelerator: of QEMU: `auto`, `kvm` or `tcg`.
    /// - Throws: a reason why the host can't.
    public func chooseDriver(_ driver: String, accelerator: String) throws(HypervisorError) -> DriverChoice {
        switch (driver, kvmObjection) {
        case ("auto", nil), ("kvm", nil):
            let reason =
                driver == "auto" ? "the processor has \(virtualization ?? "it") and /dev/kvm opens" : "as configured"
            return DriverChoice(driver: "kvm", accelerator: "kvm", executable: nil, reason: reason)
        case ("kvm", let objection?): throw HypervisorError("hypervisor is \"kvm\", but \(objection)")
        case ("auto", _), ("qemu", _): return try chooseQEMU(accelerator)
        default: throw HypervisorError("hypervisor \"\(driver)\" is not built yet")
        }
    }

    /// The absolute path of QEMU.
    public func qemuPath() throws(HypervisorError) -> String {
        switch qemu {
        case .present(let path, _): return path
        case .absent(let reason): throw HypervisorError("no QEMU: \(reason) (Debian: apt install qemu-system-x86)")
        }
    }

    private func chooseQEMU(_ accelerator: String) throws(HypervisorError) -> DriverChoice {
        let executable = try qemuPath()
        func choice(_ accelerator: String, _ reason: String) -> DriverChoice {
            DriverChoice(driver: "qemu", accelerator: accelerator, executable: executable, reason: reason)
        }
        switch (accelerator, kvmObjection) {
        case ("auto", nil), ("kvm", nil): return choice("kvm", "as configured")
        case ("auto", let objection?):
            return choice("tcg", "software emulation, five to twenty times slower, as \(objection)")
        case ("kvm", let objection?): throw HypervisorError("qemu.accel is \"kvm\", but \(objection)")
        case ("tcg", _): return choice("tcg", "software emulation, as configured")
        default: throw HypervisorError("qemu.accel: \"\(accelerator)\" is none of auto, kvm, tcg")
        }
    }
}

extension DriverChoice {
    /// What the guest's kernel needs to be told on this driver's machine.
    ///
    /// A panic resets the machine at once, which ends the VM; nothing is said on the console but what matters. The
    /// guest has no interfaces but the pod's.
    public var kernelArguments: [String] {
        let all = ["quiet", "panic=-1", "dummy.numdummies=0"]
        // No serial port, of which each byte is an exit, and no PCI bus to look for.
        if driver == "kvm" { return ["console=hvc0"] + all + ["pci=off"] }
        // The last two keep a guest that an emulator runs from doubting its timers (on a loaded host it would fall back to
        // slow ones).
        return ["console=ttyS0"] + all + ["reboot=t", "no_timer_check", "tsc=reliable"]
    }
}
