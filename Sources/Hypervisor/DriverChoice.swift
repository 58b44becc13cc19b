/// Which driver a host gets, and why.
public struct DriverChoice: Sendable, Equatable, Codable, CustomStringConvertible {
    /// As in the configuration: `qemu`.
    public var driver: String
    /// How QEMU runs the guest's instructions: `kvm` or `tcg`.
    public var accelerator: String
    /// Absolute path of the hypervisor's program.
    public var executable: String
    /// One line.
    public var reason: String

    public var description: String { "\(driver) with \(accelerator): \(reason)" }
}

extension HostFacts {
    /// Whether an ordinary Linux guest runs on this /dev/kvm, or why not. One that opens on a processor without vmx
    /// and svm is a paravirtual KVM that runs tiny guests and hangs Linux.
    public var kvmObjection: String? {
        if case .unusable(let reason) = kvm { return reason }
        guard case .version(let version) = kvm, version == 12 else { return "/dev/kvm is not of API version 12" }
        return virtualization == nil ? "/dev/kvm opens, but the processor has neither vmx nor svm" : nil
    }

    /// The driver for what the configuration asks for.
    ///
    /// - Parameters:
    ///   - driver: `auto` or `qemu`.
    ///   - accelerator: `auto`, `kvm` or `tcg`.
    /// - Throws: a reason why the host can't.
    public func chooseDriver(_ driver: String, accelerator: String) throws(HypervisorError) -> DriverChoice {
        guard driver == "auto" || driver == "qemu" else {
            throw HypervisorError("hypervisor \"\(driver)\" is not built yet")
        }
        guard case .present(let executable, _) = qemu else {
            guard case .absent(let reason) = qemu else { throw HypervisorError("no QEMU") }
            throw HypervisorError("no QEMU: \(reason) (Debian: apt install qemu-system-x86)")
        }
        func choice(_ accelerator: String, _ reason: String) -> DriverChoice {
            DriverChoice(driver: "qemu", accelerator: accelerator, executable: executable, reason: reason)
        }
        switch (accelerator, kvmObjection) {
        case ("auto", nil):
            return choice("kvm", "the processor has \(virtualization ?? "virtualization") and /dev/kvm opens")
        case ("auto", let objection?): return choice("tcg", "software emulation, as \(objection)")
        case ("kvm", nil): return choice("kvm", "as configured")
        case ("kvm", let objection?): throw HypervisorError("qemu.accel is \"kvm\", but \(objection)")
        case ("tcg", _): return choice("tcg", "software emulation, as configured")
        default: throw HypervisorError("qemu.accel: \"\(accelerator)\" is none of auto, kvm, tcg")
        }
    }
}
