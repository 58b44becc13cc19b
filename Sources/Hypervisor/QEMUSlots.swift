import LinuxSystem
import Logging
import Synchronization

/// The slots of a machine that QEMU runs, for devices that come and go: PCIe root ports, a device in each.
final class QEMUSlots: Sendable {
    /// A device in a slot.
    struct Device: Sendable {
        /// Never used twice, as QEMU keeps names of what is being removed.
        var number: Int
        /// What the guest tells it by: `network interface 02:…`, `disk …`.
        var name: String
        /// What QEMU calls it.
        var id: String { "hot\(number)" }
    }

    private enum Slot {
        case free
        case used(Device)
        /// The guest is to let go of it. True: it has; false: it refused.
        case leaving(Device, Promise<Bool>)
    }

    private let state: Mutex<(slots: [Slot], next: Int)>
    private let logger: Logger
    /// How long a guest may take to let go of a device.
    static let timeout = Duration.seconds(3)

    init(count: Int, logger: Logger) {
        state = Mutex(([Slot](repeating: .free, count: count), 0))
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
                case .used(let device) where device.id == id:
                    if isDeleted { state.slots[index] = .free }
                case .leaving(let device, let left) where device.id == id:
                    if isDeleted { state.slots[index] = .free }
                    return left
                default: break
                }
            }
            return nil
        }
        left?.settle(isDeleted)
    }

    /// A slot for a device, and what it is called. Where a device that is leaving is in the way, it is waited for: it has the same
    /// name, by which the guest would mistake one for the other, or there is no free slot.
    ///
    /// - Throws: `HypervisorError` where all slots are taken.
    func claim(_ name: String) throws -> (slot: Int, device: Device) {
        let deadline = ContinuousClock.now + Self.timeout
        while true {
            let (claimed, obstacle): ((Int, Device)?, Promise<Bool>?) = state.withLock { state in
                var leaving: [(Device, Promise<Bool>)] = []
                for case .leaving(let device, let left) in state.slots where left.current == nil {
                    leaving.append((device, left))
                }
                if let same = leaving.first(where: { $0.0.name == name }), ContinuousClock.now < deadline {
                    return (nil, same.1)
                }
                let free = state.slots.firstIndex { if case .free = $0 { true } else { false } }
                guard let free else { return (nil, leaving.first?.1) }
                let device = Device(number: state.next, name: name)
                state.next += 1
                state.slots[free] = .used(device)
                return ((free, device), nil)
            }
            if let claimed { return claimed }
            let left = deadline - ContinuousClock.now
            guard let obstacle, left > .zero else { throw HypervisorError(noSlot()) }
            _ = obstacle.wait(timeout: left)
        }
    }

    /// Gives a slot back whose device was not plugged.
    func giveBack(_ slot: Int) { state.withLock { $0.slots[slot] = .free } }

    private func noSlot() -> String {
        let (count, leaving) = state.withLock { state in
            (state.slots.count, state.slots.count { if case .leaving = $0 { true } else { false } })
        }
        return "all \(count) slots for network interfaces and disks are taken"
            + (leaving > 0 ? ", \(leaving) of them by devices that the guest has not let go of" : "")
    }

    /// Takes the device with a name away, and waits for the guest to let go of it.
    ///
    /// - Parameter before: what is to be done before the guest is asked.
    /// - Returns: whether the guest has let go; nil: there is no such device.
    func remove(_ name: String, _ qmp: any QEMUMonitor, before: (Device) throws -> Void = { _ in }) throws -> Bool? {
        let promise = try Promise<Bool>()
        let found: Device? = state.withLock { state in
            for index in state.slots.indices {
                guard case .used(let device) = state.slots[index], device.name == name else { continue }
                state.slots[index] = .leaving(device, promise)
                return device
            }
            return nil
        }
        guard let device = found else { return nil }
        try before(device)
        try qmp.execute("device_del", ["id": .text(device.id)])
        let left = promise.wait(timeout: Self.timeout)
        if left != true {
            let reason = left == false ? "refuses to let go of it" : "has not let go of it within \(Self.timeout)"
            logger.warning("\(name) keeps its slot: the guest \(reason)")
        }
        return left == true
    }
}
