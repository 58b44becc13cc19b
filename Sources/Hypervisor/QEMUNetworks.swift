import Glibc
import LinuxSystem
import Logging
import Synchronization

/// The network interfaces of a machine that QEMU runs. Each is in a slot: a PCIe root port of its own.
final class QEMUNetworks: Sendable {
    private struct Interface {
        /// Never used twice, as QEMU keeps names of what is being removed.
        var number: Int
        var hardwareAddress: [UInt8]
        var deviceID: String { "nic\(number)" }
        var backendID: String { "net\(number)" }
    }

    private enum Slot {
        case free
        case used(Interface)
        /// The guest is to let go of it. True: it has; false: it refused.
        case leaving(Interface, Promise<Bool>)
    }

    private let state: Mutex<(slots: [Slot], next: Int)>
    /// The host's kernel moves the frames.
    private let vhost: Bool
    private let logger: Logger
    /// How long a guest may take to let go of an interface.
    static let timeout = Duration.seconds(3)

    init(slots: Int, vhost: Bool, logger: Logger) {
        state = Mutex(([Slot](repeating: .free, count: slots), 0))
        self.vhost = vhost
        self.logger = logger
    }

    /// Takes an event of QEMU's.
    func take(_ event: QMPEvent) {
        let (id, isDeleted): (String, Bool)
        switch event {
        case .deviceDeleted(let device): (id, isDeleted) = (device, true)
        case .unplugRefused(let device): (id, isDeleted) = (device, false)
        default: return
        }
        let left: Promise<Bool>? = state.withLock { state in
            for index in state.slots.indices {
                switch state.slots[index] {
                case .used(let interface) where interface.deviceID == id:
                    if isDeleted { state.slots[index] = .free }
                case .leaving(let interface, let left) where interface.deviceID == id:
                    if isDeleted { state.slots[index] = .free }
                    return left
                default: break
                }
            }
            return nil
        }
        left?.settle(isDeleted)
    }

    // MARK: Adding

    /// Plugs an interface whose frames go to a tap into a free slot.
    func add(hardwareAddress: [UInt8], queues: [Int32], _ qmp: QMP) throws {
        let (index, interface) = try claim(hardwareAddress)
        do {
            try plug(interface, into: index, queues, qmp)
        } catch {
            _ = try? qmp.execute("netdev_del", ["id": .text(interface.backendID)])
            state.withLock { $0.slots[index] = .free }
            throw error
        }
    }

    /// A slot for an interface. Where an interface that is leaving is in the way, it is waited for: it has the same address, by
    /// which the guest would mistake one for the other, or there is no free slot.
    private func claim(_ hardwareAddress: [UInt8]) throws -> (Int, Interface) {
        let deadline = ContinuousClock.now + Self.timeout
        while true {
            let (claimed, obstacle): ((Int, Interface)?, Promise<Bool>?) = state.withLock { state in
                var leaving: [(Interface, Promise<Bool>)] = []
                for case .leaving(let interface, let left) in state.slots where left.current == nil {
                    leaving.append((interface, left))
                }
                if let same = leaving.first(where: { $0.0.hardwareAddress == hardwareAddress }),
                    ContinuousClock.now < deadline
                {
                    return (nil, same.1)
                }
                let free = state.slots.firstIndex { if case .free = $0 { true } else { false } }
                guard let free else { return (nil, leaving.first?.1) }
                let interface = Interface(number: state.next, hardwareAddress: hardwareAddress)
                state.next += 1
                state.slots[free] = .used(interface)
                return ((free, interface), nil)
            }
            if let claimed { return claimed }
            let left = deadline - ContinuousClock.now
            guard let obstacle, left > .zero else { throw HypervisorError(noSlot()) }
            _ = obstacle.wait(timeout: left)
        }
    }

    private func noSlot() -> String {
        let (count, leaving) = state.withLock { state in
            (state.slots.count, state.slots.count { if case .leaving = $0 { true } else { false } })
        }
        return "all \(count) slots for network interfaces are taken"
            + (leaving > 0 ? ", \(leaving) of them by interfaces that the guest has not let go of" : "")
    }

    private func plug(_ interface: Interface, into index: Int, _ queues: [Int32], _ qmp: QMP) throws {
        func names(_ kind: String) -> [String] { queues.indices.map { "\(kind)\(interface.number)-\($0)" } }
        for (name, queue) in zip(names("tap"), queues) {
            try qmp.execute("getfd", ["fdname": .text(name)], descriptor: queue)
        }
        var tap: [String: QMP.Argument] = [
            "type": "tap", "id": .text(interface.backendID), "fds": .text(names("tap").joined(separator: ":")),
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
            "driver": "virtio-net-pci", "id": .text(interface.deviceID), "netdev": .text(interface.backendID),
            "bus": .text(QEMUDriver.slotID(index)), "mac": .text(hardwareAddressText(interface.hardwareAddress)),
            "romfile": "",
        ]
        if queues.count > 1 {
            device["mq"] = .flag(true)
            // An interrupt for each queue, the control queue and changes of the configuration.
            device["vectors"] = .number(2 * queues.count + 2)
        }
        try qmp.execute("device_add", device)
    }

    // MARK: Removing

    /// Takes an interface away, and waits for the guest to let go of it.
    ///
    /// The tap goes first: QEMU would poll a tap without end whose link is gone. To the guest that is a cable that is pulled.
    func remove(hardwareAddress: [UInt8], _ qmp: QMP) throws {
        let promise = try Promise<Bool>()
        let found: Interface? = state.withLock { state in
            for index in state.slots.indices {
                guard case .used(let interface) = state.slots[index], interface.hardwareAddress == hardwareAddress
                else { continue }
                state.slots[index] = .leaving(interface, promise)
                return interface
            }
            return nil
        }
        guard let interface = found else { return }
        try qmp.execute("netdev_del", ["id": .text(interface.backendID)])
        try qmp.execute("device_del", ["id": .text(interface.deviceID)])
        let left = promise.wait(timeout: Self.timeout)
        if left != true {
            let reason = left == false ? "refuses to let go of it" : "has not let go of it within \(Self.timeout)"
            logger.warning(
                "network interface \(hardwareAddressText(hardwareAddress)) keeps its slot: the guest \(reason)")
        }
    }
}
