import Glibc
import LinuxSystem
import Virtio

/// The state of one ring, as the front end has set it.
struct Vring {
    /// The ring's parts in the front end's address space.
    struct Addresses {
        var descriptors: UInt64
        var used: UInt64
        var available: UInt64
    }

    var size: UInt32 = 0
    var position: UInt16 = 0
    /// Whether the driver was reset since the ring last ran.
    var isFresh = true
    var addresses: Addresses?
    var kick: SharedDescriptor?
    let lines = RingLines()
    var isEnabled = false
    var isRunning = false
}

extension Session {
    func setState(_ request: Request, _ message: Message) throws(SessionError) {
        var fields = try message.fields(count: 8)
        let index = try vring(fields.u32(), message)
        let value = fields.u32()
        switch request {
        case .setVringEnable:
            guard value <= 1 else { throw .malformed(message.header.request, "value \(value)") }
            vrings[index].isEnabled = value == 1
            if value == 1 { startIfComplete(index) } else { stop(index) }
        case .setVringNumber:
            try refuseIfRunning(index, message)
            vrings[index].size = value
        default:
            try refuseIfRunning(index, message)
            guard let position = UInt16(exactly: value) else {
                throw .malformed(message.header.request, "base \(value)")
            }
            // A driver that was reset starts at 0; one that was only stopped goes on where it was.
            if position == 0, vrings[index].position != 0 { vrings[index].isFresh = true }
            vrings[index].position = position
        }
    }

    func setAddresses(_ message: Message) throws(SessionError) {
        var fields = try message.fields(count: 40)
        let index = try vring(fields.u32(), message)
        let flags = fields.u32()
        try refuseIfRunning(index, message)
        guard flags == 0 else { throw .malformed(message.header.request, "logging is not supported") }
        vrings[index].addresses = .init(descriptors: fields.u64(), used: fields.u64(), available: fields.u64())
    }

    func setDescriptor(_ request: Request, _ message: Message) throws(SessionError) {
        let value = try message.number()
        guard value < 512 else { throw .malformed(message.header.request, "value \(value)") }
        let index = try vring(UInt32(value & 255), message)
        let withoutDescriptor = value & 256 != 0
        guard message.descriptors.count == (withoutDescriptor ? 0 : 1)
        else { throw .malformed(message.header.request, "\(message.descriptors.count) descriptors") }
        let descriptor = message.descriptors.first
        switch request {
        case .setVringCall: vrings[index].lines.setCall(descriptor)
        case .setVringError: vrings[index].lines.setError(descriptor)
        default:
            guard let descriptor else { throw .malformed(message.header.request, "polling is not supported") }
            stop(index)
            vrings[index].kick = descriptor
            startIfComplete(index)
        }
    }

    private func refuseIfRunning(_ index: Int, _ message: Message) throws(SessionError) {
        if vrings[index].isRunning { throw .malformed(message.header.request, "ring \(index) is running") }
    }

    /// Starts a ring that has all it needs. Chains that are in the ring already are served without waiting for a kick.
    func startIfComplete(_ index: Int) {
        let vring = vrings[index]
        let enabled = vring.isEnabled || features & protocolFeaturesBit == 0
        guard !vring.isRunning, enabled, let kick = vring.kick, let addresses = vring.addresses,
            let memory = table.memory
        else { return }
        guard let descriptors = memory.guestAddress(ofUser: addresses.descriptors),
            let available = memory.guestAddress(ofUser: addresses.available),
            let used = memory.guestAddress(ofUser: addresses.used)
        else { return fail(index, "ring \(index) outside the machine's memory") }
        let setup = QueueSetup(
            geometry: QueueGeometry(
                size: vring.size, descriptorTable: descriptors, availableRing: available, usedRing: used),
            memory: memory, features: RingFeatures(rawValue: features), position: vring.position,
            isFresh: vring.isFresh, kick: kick, lines: vring.lines)
        vrings[index].isRunning = true
        vrings[index].isFresh = false
        do {
            try device.start(queue: index, setup)
        } catch {
            stop(index)
            fail(index, "ring \(index): \(error)")
        }
    }

    func stop(_ index: Int) {
        guard vrings[index].isRunning else { return }
        vrings[index].isRunning = false
        vrings[index].position = device.stop(queue: index)
    }

    private func fail(_ index: Int, _ reason: String) {
        vrings[index].lines.reportError()
        onBroken(reason)
    }
}
