/// What a process answers to a request.
public enum ControlReply: Equatable, Sendable {
    /// Done as asked.
    case done
    /// To `boot`: the guest runs. Monotonic nanoseconds just before its first instruction.
    case booted(firstInstruction: UInt64)
    /// To `save` and `saveFiles`: how many bytes the state has.
    case saved(bytes: UInt64)
    /// To `statistics`.
    case statistics(ProcessStatistics)
    /// To `startBlock` and `addBlock`.
    case disk(DiskMode)
    /// Not done, for this reason.
    case failed(reason: String)
    /// To `connect`: the guest answered with RST.
    case refused
    /// To `connect`: the guest's driver has not started the device.
    case notReady
    /// To `connect`: the guest did not answer in time.
    case timedOut
}

/// How a disk's requests are performed.
public struct DiskMode: Equatable, Sendable, CustomStringConvertible {
    /// By io_uring(7), many at a time. If not, each queue performs one after the other.
    public var usesRing: Bool
    /// Past the host's page cache.
    public var isDirect: Bool
    public var queues: UInt8

    public init(usesRing: Bool, isDirect: Bool, queues: UInt8) {
        (self.usesRing, self.isDirect, self.queues) = (usesRing, isDirect, queues)
    }

    public var description: String {
        (usesRing ? "io_uring" : "preadv and pwritev") + (isDirect ? ", direct" : ", through the page cache")
            + ", \(queues) \(queues == 1 ? "queue" : "queues")"
    }
}

/// What a process reports by itself.
public enum ControlEvent: Equatable, Sendable {
    /// The guest's driver has started the vsock device.
    case started
    /// The guest's agent rang the doorbell: it listens.
    case ready
    /// A device has stopped for good: the guest broke a ring, or the machine's process broke the protocol.
    case broken(reason: String)
    /// The machine has stopped.
    case ended(MachineStop, reason: String)
}

/// How a machine stopped.
public enum MachineStop: UInt8, Sendable {
    case poweredOff = 1
    case reset, tripleFault, unhandled
    /// Every vCPU is halted for good.
    case halted
}

/// What a process sends: a reply to the request of the same sequence number, or an event.
enum ControlAnswer: Equatable, Sendable {
    case reply(ControlReply)
    case event(ControlEvent)

    /// The numbers in a packet.
    enum Kind: UInt16, CaseIterable {
        case done = 128
        case booted, failed, refused, notReady, timedOut, saved, statistics, disk
        case started = 160
        case ready, broken, ended
    }

    var kind: Kind {
        switch self {
        case .reply(.done): .done
        case .reply(.booted): .booted
        case .reply(.saved): .saved
        case .reply(.statistics): .statistics
        case .reply(.disk): .disk
        case .reply(.failed): .failed
        case .reply(.refused): .refused
        case .reply(.notReady): .notReady
        case .reply(.timedOut): .timedOut
        case .event(.started): .started
        case .event(.ready): .ready
        case .event(.broken): .broken
        case .event(.ended): .ended
        }
    }

    func encode(to packet: inout PacketWriter<Int32>) {
        switch self {
        case .reply(.booted(let time)): packet.add(time)
        case .reply(.saved(let bytes)): packet.add(bytes)
        case .reply(.statistics(let statistics)): statistics.encode(to: &packet)
        case .reply(.disk(let mode)):
            packet.add(mode.usesRing)
            packet.add(mode.isDirect)
            packet.add(mode.queues)
        case .reply(.failed(let reason)), .event(.broken(let reason)): packet.add(reason: reason)
        case .event(.ended(let stop, let reason)):
            packet.add(stop.rawValue)
            packet.add(reason: reason)
        case .reply(.done), .reply(.refused), .reply(.notReady), .reply(.timedOut), .event(.started), .event(.ready):
            break
        }
    }

    /// Reads a reply or an event, neither of which has descriptors; nothing may be left over.
    init<Descriptor>(_ kind: Kind, from packet: inout PacketReader<Descriptor>) throws(FieldError) {
        switch kind {
        case .done: self = .reply(.done)
        case .booted: self = .reply(.booted(firstInstruction: try packet.number("firstInstruction")))
        case .saved: self = .reply(.saved(bytes: try packet.number("bytes")))
        case .statistics: self = .reply(.statistics(try ProcessStatistics(from: &packet)))
        case .disk:
            self = .reply(
                .disk(
                    DiskMode(
                        usesRing: try packet.flag("usesRing"), isDirect: try packet.flag("isDirect"),
                        queues: try packet.number("queues"))))
        case .failed: self = .reply(.failed(reason: try packet.reason("reason")))
        case .refused: self = .reply(.refused)
        case .notReady: self = .reply(.notReady)
        case .timedOut: self = .reply(.timedOut)
        case .started: self = .event(.started)
        case .ready: self = .event(.ready)
        case .broken: self = .event(.broken(reason: try packet.reason("reason")))
        case .ended:
            let number: UInt8 = try packet.number("stop")
            guard let stop = MachineStop(rawValue: number) else { throw FieldError("stop \(number) is unknown") }
            self = .event(.ended(stop, reason: try packet.reason("reason")))
        }
        try packet.finish()
    }
}
