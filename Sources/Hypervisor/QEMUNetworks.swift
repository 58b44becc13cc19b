import Glibc
import LinuxSystem

/// The network interfaces of a machine that QEMU runs.
final class QEMUNetworks: Sendable {
    private let slots: QEMUSlots
    /// The host's kernel moves the frames.
    private let vhost: Bool

    init(_ slots: QEMUSlots, vhost: Bool) {
        self.slots = slots
        self.vhost = vhost
    }

    private static func name(_ hardwareAddress: [UInt8]) -> String {
        "network interface \(hardwareAddressText(hardwareAddress))"
    }

    private static func backend(of interface: QEMUSlots.Device) -> String { "net\(interface.number)" }

    /// Plugs an interface whose frames go to a tap into a free slot.
    func add(hardwareAddress: [UInt8], queues: [Int32], _ qmp: any QEMUMonitor) throws {
        let (index, interface) = try slots.claim(Self.name(hardwareAddress))
        do {
            try plug(interface, hardwareAddress, into: index, queues, qmp)
        } catch {
            _ = try? qmp.execute("netdev_del", ["id": .text(Self.backend(of: interface))])
            slots.giveBack(index)
            throw error
        }
    }

    private func plug(
        _ interface: QEMUSlots.Device, _ hardwareAddress: [UInt8], into index: Int, _ queues: [Int32],
        _ qmp: any QEMUMonitor
    ) throws {
        func names(_ kind: String) -> [String] { queues.indices.map { "\(kind)\(interface.number)-\($0)" } }
        for (name, queue) in zip(names("tap"), queues) {
            try qmp.execute("getfd", ["fdname": .text(name)], descriptor: queue)
        }
        var tap: [String: QMP.Argument] = [
            "type": "tap", "id": .text(Self.backend(of: interface)), "fds": .text(names("tap").joined(separator: ":")),
            "vhost": .flag(vhost),
        ]
        if vhost {
            for name in names("vhost") {
                let device = try OwnedDescriptor.open("/dev/vhost-net", O_RDWR)
                try qmp.execute("getfd", ["fdname": .text(name)], descriptor: device.raw)
            }
            tap["vhostfds"] = .text(names("vhost").joined(separator: ":"))
        }
        try qmp.execute("netdev_add", tap)
        var device: [String: QMP.Argument] = [
            "driver": "virtio-net-pci", "id": .text(interface.id), "netdev": .text(Self.backend(of: interface)),
            "bus": .text(QEMUDriver.slotID(index)), "mac": .text(hardwareAddressText(hardwareAddress)),
            "romfile": "",
        ]
        if queues.count > 1 {
            device["mq"] = .flag(true)
            // An interrupt for each queue, the control queue and changes of the configuration.
            device["vectors"] = .number(2 * queues.count + 2)
        }
        try qmp.execute("device_add", device)
    }

    /// Takes an interface away, and waits for the guest to let go of it.
    ///
    /// The tap goes first: QEMU would poll a tap without end whose link is gone. To the guest that is a cable that is pulled.
    func remove(hardwareAddress: [UInt8], _ qmp: any QEMUMonitor) throws {
        _ = try slots.remove(Self.name(hardwareAddress), qmp) { interface in
            try qmp.execute("netdev_del", ["id": .text(Self.backend(of: interface))])
        }
    }
}
