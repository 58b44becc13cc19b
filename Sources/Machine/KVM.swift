import CLinux
import Glibc
public import LinuxSystem

/// /dev/kvm, opened by another process.
///
/// Source: Documentation/virt/kvm/api.rst, whose section numbers stand at the calls.
public struct KVM: Sendable {
    let device: SharedDescriptor
    /// Bytes of the memory that a vCPU shares with this process (4.5).
    let vcpuMappingSize: Int

    /// Checks that the descriptor is KVM and has what this program needs.
    ///
    /// - Parameter device: /dev/kvm, open for reading and writing.
    /// - Throws: `MachineError` names the extension that is missing; `SystemError` where the descriptor is not KVM.
    public init(device: SharedDescriptor) throws {
        self.device = device
        let version = try check(
            "KVM_GET_API_VERSION", "", martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_GET_API_VERSION), 0))
        guard version == KVM_API_VERSION else { throw MachineError("/dev/kvm: API version \(version), not 12") }
        vcpuMappingSize = Int(
            try check(
                "KVM_GET_VCPU_MMAP_SIZE", "", martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_GET_VCPU_MMAP_SIZE), 0)))
        for (number, name) in Self.required + Platform.requiredCapabilities where value(of: number) <= 0 {
            throw MachineError("/dev/kvm lacks \(name)")
        }
    }

    private static let required: [(Int32, String)] = [
        (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"), (KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
        (KVM_CAP_IRQFD, "KVM_CAP_IRQFD"), (KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"),
        (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"), (KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"),
    ]

    /// What KVM_CHECK_EXTENSION answers for a capability: 0 where KVM lacks it (4.4).
    func value(of capability: Int32) -> Int32 {
        martlet_ioctl_int(device.raw, UInt(MARTLET_KVM_CHECK_EXTENSION), Int(capability))
    }
}
