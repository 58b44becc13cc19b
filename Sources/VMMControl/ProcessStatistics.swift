/// What a process of a machine has counted since its start.
public struct ProcessStatistics: Equatable, Sendable {
    /// One virtqueue.
    public struct Queue: Equatable, Sendable {
        public var device: DeviceKind
        /// Tells devices of one kind apart; counts from 0.
        public var number: UInt8
        public var queue: UInt8
        public var chains: UInt64
        public var interrupts: UInt64
        /// Bytes, as the device sees it.
        public var read: UInt64
        public var written: UInt64

        public init(
            device: DeviceKind, number: UInt8, queue: UInt8, chains: UInt64, interrupts: UInt64, read: UInt64,
            written: UInt64
        ) {
            (self.device, self.number, self.queue) = (device, number, queue)
            (self.chains, self.interrupts, self.read, self.written) = (chains, interrupts, read, written)
        }
    }

    /// The requests of one kind to the file server.
    public struct Operations: Equatable, Sendable {
        public var kind: FileOperationKind
        /// All of them took so long.
        public var nanoseconds: UInt64
        /// How many took no longer than each of `FileOperationKind.bounds`, and no less than the one before; then those that
        /// took longer.
        public var counts: [UInt64]

        public init(kind: FileOperationKind, nanoseconds: UInt64, counts: [UInt64]) {
            (self.kind, self.nanoseconds, self.counts) = (kind, nanoseconds, counts)
        }
    }

    /// The connections of a vsock device.
    public struct Connections: Equatable, Sendable {
        public var current: UInt32
        /// Bytes.
        public var toGuest: UInt64
        public var fromGuest: UInt64

        public init(current: UInt32, toGuest: UInt64, fromGuest: UInt64) {
            (self.current, self.toGuest, self.fromGuest) = (current, toGuest, fromGuest)
        }
    }

    /// The memory balloon, bytes.
    public struct Balloon: Equatable, Sendable {
        /// What the guest is asked to give up, and what it says it has given up.
        public var target: UInt64
        public var size: UInt64
        /// Free memory that it has reported and that went back to the host so far, each time that it did. nil: not counted.
        public var reported: UInt64?
        /// As the guest's driver tells it; nil: it does not.
        public var free: UInt64?
        public var available: UInt64?
        public var caches: UInt64?

        public init(
            target: UInt64, size: UInt64, reported: UInt64?, free: UInt64? = nil, available: UInt64? = nil,
            caches: UInt64? = nil
        ) {
            (self.target, self.size, self.reported) = (target, size, reported)
            (self.free, self.available, self.caches) = (free, available, caches)
        }
    }

    /// vCPUs and memory that can come and go.
    public struct Hotplug: Equatable, Sendable {
        /// vCPUs that the guest has, or is getting.
        public var vcpus: UInt32
        /// Bytes that the guest is asked to use of the hotplug memory, and what it uses.
        public var requested: UInt64
        public var plugged: UInt64

        public init(vcpus: UInt32, requested: UInt64, plugged: UInt64) {
            (self.vcpus, self.requested, self.plugged) = (vcpus, requested, plugged)
        }
    }

    public var queues: [Queue]
    public var operations: [Operations]
    /// nil: the process serves no vsock device.
    public var connections: Connections?
    /// nil: the process serves no balloon.
    public var balloon: Balloon?
    /// nil: the process has no machine.
    public var hotplug: Hotplug?

    public init(
        queues: [Queue] = [], operations: [Operations] = [], connections: Connections? = nil, balloon: Balloon? = nil,
        hotplug: Hotplug? = nil
    ) {
        (self.queues, self.operations) = (queues, operations)
        (self.connections, self.balloon, self.hotplug) = (connections, balloon, hotplug)
    }
}

/// The kinds of virtio devices.
public enum DeviceKind: UInt8, Sendable, CaseIterable {
    case network = 1
    case block, console, entropy, vsock, files, rootImage, balloon, memory
}

/// What the guest asks of the file server.
public enum FileOperationKind: UInt8, Sendable, CaseIterable {
    case lookup = 1
    case attributes, open, read, write, list, make, remove, rename, sync, release, forget, other

    /// Nanoseconds.
    public static let bounds: [UInt64] = [
        10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 100_000_000, 1_000_000_000,
    ]

    /// - Parameter opcode: of FUSE (linux/fuse.h).
    public init(opcode: UInt32) {
        self =
            switch opcode {
            case 1: .lookup
            // Attributes, links, file systems and extended attributes.
            case 3, 4, 5, 17, 21...24, 34: .attributes
            case 14, 27, 35, 51: .open
            case 15: .read
            case 16: .write
            case 28, 44: .list
            case 6, 8, 9, 13: .make
            case 10, 11: .remove
            case 12, 45: .rename
            case 20, 25, 30, 50: .sync
            case 18, 29: .release
            case 2, 42: .forget
            default: .other
            }
    }
}

extension ProcessStatistics {
    /// More are left out, so that a reply always fits in a packet: a jailed process can't make a memory file for it.
    static let mostQueues = 64

    func encode(to packet: inout PacketWriter<Int32>) {
        let queues = queues.prefix(Self.mostQueues)
        packet.add(UInt8(queues.count))
        for queue in queues {
            packet.add(queue.device.rawValue)
            packet.add(queue.number)
            packet.add(queue.queue)
            for number in [queue.chains, queue.interrupts, queue.read, queue.written] { packet.add(number) }
        }
        packet.add(UInt8(clamping: operations.count))
        for operation in operations {
            packet.add(operation.kind.rawValue)
            packet.add(operation.nanoseconds)
            for count in operation.counts { packet.add(count) }
        }
        packet.add(connections != nil)
        if let connections {
            packet.add(connections.current)
            packet.add(connections.toGuest)
            packet.add(connections.fromGuest)
        }
        packet.add(balloon != nil)
        if let balloon {
            packet.add(balloon.target)
            packet.add(balloon.size)
            for number in [balloon.reported, balloon.free, balloon.available, balloon.caches] {
                packet.add(number != nil)
                packet.add(number ?? 0)
            }
        }
        packet.add(hotplug != nil)
        if let hotplug {
            packet.add(hotplug.vcpus)
            packet.add(hotplug.requested)
            packet.add(hotplug.plugged)
        }
    }

    init<Descriptor>(from packet: inout PacketReader<Descriptor>) throws(FieldError) {
        self.init()
        let queueCount: UInt8 = try packet.number("queues")
        guard queueCount <= Self.mostQueues else { throw FieldError("\(queueCount) queues") }
        for _ in 0..<queueCount { queues.append(try Self.queue(from: &packet)) }
        let operationCount: UInt8 = try packet.number("operations")
        guard operationCount <= FileOperationKind.allCases.count else {
            throw FieldError("\(operationCount) kinds of operations")
        }
        for _ in 0..<operationCount { operations.append(try Self.operations(from: &packet)) }
        if try packet.flag("connections") {
            connections = Connections(
                current: try packet.number("current"), toGuest: try packet.number("toGuest"),
                fromGuest: try packet.number("fromGuest"))
        }
        if try packet.flag("balloon") { balloon = try Self.balloon(from: &packet) }
        if try packet.flag("hotplug") {
            hotplug = Hotplug(
                vcpus: try packet.number("vcpus"), requested: try packet.number("requested"),
                plugged: try packet.number("plugged"))
        }
    }

    private static func balloon<Descriptor>(
        from packet: inout PacketReader<Descriptor>
    ) throws(FieldError) -> Balloon {
        func optional(_ name: String, _ packet: inout PacketReader<Descriptor>) throws(FieldError) -> UInt64? {
            let isThere = try packet.flag(name)
            let number: UInt64 = try packet.number(name)
            return isThere ? number : nil
        }
        return Balloon(
            target: try packet.number("target"), size: try packet.number("size"),
            reported: try optional("reported", &packet), free: try optional("free", &packet),
            available: try optional("available", &packet), caches: try optional("caches", &packet))
    }

    private static func queue<Descriptor>(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Queue {
        let kind: UInt8 = try packet.number("device")
        guard let device = DeviceKind(rawValue: kind) else { throw FieldError("device \(kind) is unknown") }
        return Queue(
            device: device, number: try packet.number("number"), queue: try packet.number("queue"),
            chains: try packet.number("chains"), interrupts: try packet.number("interrupts"),
            read: try packet.number("read"), written: try packet.number("written"))
    }

    private static func operations<Descriptor>(
        from packet: inout PacketReader<Descriptor>
    ) throws(FieldError) -> Operations {
        let number: UInt8 = try packet.number("operation")
        guard let kind = FileOperationKind(rawValue: number) else {
            throw FieldError("operation \(number) is unknown")
        }
        var operations = Operations(kind: kind, nanoseconds: try packet.number("nanoseconds"), counts: [])
        for _ in 0...FileOperationKind.bounds.count { operations.counts.append(try packet.number("count")) }
        return operations
    }
}
