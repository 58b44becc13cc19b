import GuestKernel

/// Runs virtual machines as transient domains of libvirt, which runs QEMU.
public struct LibvirtDriver: HypervisorDriver {
    /// The system's libvirtd.
    public static let standardURI = "qemu:///system"

    /// Why this Martlet can't use libvirt, to follow the driver's name; nil: it can.
    public static var objection: String? {
        #if Libvirt
            nil
        #else
            "needs a Martlet that was built with the package trait Libvirt"
        #endif
    }

    public let name = "libvirt"
    let uri: String
    /// Has what libvirt's QEMU is to be, and the log.
    let qemu: QEMUDriver

    /// - Parameters:
    ///   - uri: of the libvirtd, on this host.
    ///   - qemu: the QEMU that libvirt is to run.
    init(uri: String, _ qemu: QEMUDriver) { (self.uri, self.qemu) = (uri, qemu) }

    public func launch(_ configuration: VMConfiguration) throws -> any VirtualMachine {
        _ = try KernelImage.inspect(configuration.kernel)
        #if Libvirt
            return try LibvirtMachine(self, configuration)
        #else
            throw HypervisorError("hypervisor \"libvirt\" \(Self.objection ?? "")")
        #endif
    }
}
