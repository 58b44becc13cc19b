import Glibc
import LinuxSystem

/// The machine's MMIO slots: virtio devices over MMIO that are announced in ACPI, and whose devices come and go while it runs.
enum HotplugSlots {
    private static let devices = "/sys/bus/platform/devices"
    private static let driver = "/sys/bus/platform/drivers/virtio-mmio"
    /// What the kernel calls the slots: the ACPI identifier, and a number.
    private static let prefix = "LNRO0005:"

    /// Has the driver probe each slot that it is not bound to. PCI devices appear by themselves.
    static func probe() {
        for name in (try? directoryNames(devices)) ?? [] {
            guard name.hasPrefix(prefix), access("\(devices)/\(name)/driver", F_OK) != 0 else { continue }
            // ENODEV: it is empty.
            try? writeText(name, to: "\(driver)/bind")
        }
    }

    /// Unbinds the driver of the slot that a network interface is in, which resets the device and removes the interface.
    /// Nothing happens to an interface that is in no slot.
    ///
    /// - Parameter interface: its name.
    /// - Throws: `SystemError` where the kernel refuses.
    static func unbind(interface: String) throws(SystemError) {
        try unbind(device: "/sys/class/net/\(interface)/device")
    }

    /// Unbinds the driver of the slot that a device is in.
    ///
    /// - Parameter device: of sysfs.
    static func unbind(device: String) throws(SystemError) {
        guard let path = realpath(device, nil) else { return }
        defer { free(path) }
        guard let slot = slot(inPath: String(cString: path)) else { return }
        try writeText(slot, to: "\(driver)/unbind")
    }

    /// The slot's name in the path of one of its devices, such as `/sys/devices/platform/LNRO0005:04/virtio4`; nil: there is none.
    static func slot(inPath path: String) -> String? {
        path.split(separator: "/").first { $0.hasPrefix(prefix) }.map(String.init)
    }
}
