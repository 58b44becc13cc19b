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

    /// What a pod says whose machine's process was killed. libvirt does not tell by what its QEMU ended.
    var killedMachine: String {
        switch self {
        case .qemu, .kvm: "\(machineProcess) was killed by signal 9 (SIGKILL)"
        case .libvirt: "libvirt's QEMU has ended by itself, or was killed"
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
