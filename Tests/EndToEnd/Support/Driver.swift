/// The hypervisor that the tests run on: each test once per driver.
enum Driver: String {
    /// QEMU, with KVM or software emulation as the host allows.
    case qemu
    /// The built-in VMM.
    case kvm
    /// QEMU as libvirt's domain, of the libvirtd that `MARTLET_TEST_LIBVIRT` names.
    case libvirt

    /// The name of the process that runs the machine, in state.json and in messages.
    var machineProcess: String {
        switch self {
        case .qemu: "qemu"
        case .kvm: "martlet-vmm"
        case .libvirt: "libvirt qemu"
        }
    }

    /// The names of the device processes beside it.
    var deviceProcesses: [String] {
        switch self {
        case .qemu, .libvirt: ["martlet-device vsock", "martlet-device files"]
        case .kvm: ["martlet-device files"]
        }
    }
}
