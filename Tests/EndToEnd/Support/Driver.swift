/// The hypervisor that the tests run on: each test once per driver.
enum Driver: String {
    /// QEMU, with KVM or software emulation as the host allows.
    case qemu
    /// The built-in VMM.
    case kvm

    /// The name of the process that runs the machine, in state.json and in messages.
    var machineProcess: String {
        switch self {
        case .qemu: "qemu"
        case .kvm: "martlet-vmm"
        }
    }

    /// The names of the device processes beside it.
    var deviceProcesses: [String] {
        switch self {
        case .qemu: ["martlet-device vsock", "martlet-device files"]
        case .kvm: ["martlet-device files"]
        }
    }
}
