import CLinux
import Glibc
public import LinuxSystem

extension VM {
    /// An I/O port to which the guest writes one byte when it has something to say. The write signals an eventfd; no vCPU
    /// leaves the guest for user space.
    ///
    /// - Parameters:
    ///   - port: on which no other device is.
    ///   - value: the byte; others are lost.
    /// - Returns: the eventfd.
    ///
    /// Source: KVM api.rst 4.59, KVM_IOEVENTFD_FLAG_PIO.
    public func addDoorbell(port: UInt16, value: UInt8) throws -> SharedDescriptor {
        let event = try SharedDescriptor.event()
        var wire = kvm_ioeventfd()
        wire.datamatch = UInt64(value)
        wire.addr = UInt64(port)
        wire.len = 1
        wire.fd = event.raw
        wire.flags = 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch) | 1 << UInt32(kvm_ioeventfd_flag_nr_pio)
        try call("KVM_IOEVENTFD", MARTLET_KVM_IOEVENTFD, &wire)
        return event
    }
}
