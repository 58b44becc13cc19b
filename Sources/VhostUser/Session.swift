import CLinux
import Glibc
public import LinuxSystem
import Virtio

/// A vhost-user back end: serves a device to the machine at the other end of a socket.
///
/// The front end is trusted no more than its guest: a wrong message ends the session with an error. A session belongs to one
/// thread.
public final class Session {
    var socket: MessageSocket
    let device: any BackendDevice
    /// Called with the reason when the driver broke a ring.
    let onBroken: (String) -> Void
    var vrings: [Vring]
    var table = MemoryTable()
    var features: UInt64 = 0
    private var protocolFeatures: ProtocolFeatures = []

    /// - Parameter onBroken: called with the reason when a ring could not start.
    public init(socket: SharedDescriptor, device: any BackendDevice, onBroken: @escaping (String) -> Void) {
        self.socket = MessageSocket(socket, .backEnd)
        self.device = device
        self.onBroken = onBroken
        vrings = (0..<device.queueCount).map { _ in Vring() }
    }

    /// The socket to watch: call `receive` when it is readable.
    public var descriptor: Int32 { socket.socket.raw }

    private var offered: UInt64 { device.features | RingFeatures.all.rawValue | protocolFeaturesBit }

    private var offeredProtocol: ProtocolFeatures {
        // QEMU warns about this feature for a device whose configuration space it supplies itself.
        device.ownsConfiguration
            ? [.multipleQueues, .replyAcknowledge, .configuration] : [.multipleQueues, .replyAcknowledge]
    }

    /// Handles the messages that have arrived.
    ///
    /// - Returns: false when the front end has closed the connection.
    public func receive() throws(SessionError) -> Bool {
        while true {
            switch try socket.receive() {
            case .nothingYet: return true
            case .end:
                close()
                return false
            case .message(let message): try handle(message)
            }
        }
    }

    /// Stops all queues.
    public func close() {
        for index in vrings.indices { stop(index) }
    }

    private func handle(_ message: Message) throws(SessionError) {
        guard let request = Request(rawValue: message.header.request) else {
            throw .unsupported(message.header.request)
        }
        if let answer = try answer(request, message) {
            return try socket.reply(message.header.request, answer)
        }
        try perform(request, message)
        if protocolFeatures.contains(.replyAcknowledge), message.header.flags & MessageHeader.needsReply != 0 {
            try socket.reply(message.header.request, bytes(0 as UInt64))
        }
    }

    /// The payload of the reply to a request that has one; nil for others.
    private func answer(_ request: Request, _ message: Message) throws(SessionError) -> [UInt8]? {
        switch request {
        case .getFeatures: return bytes(offered)
        case .getProtocolFeatures: return bytes(offeredProtocol.rawValue)
        case .getQueueNumber: return bytes(UInt64(vrings.count))
        case .getVringBase:
            var fields = try message.fields(count: 8)
            let index = try vring(fields.u32(), message)
            stop(index)
            vrings[index].kick = nil
            return bytes(UInt32(index)) + bytes(UInt32(vrings[index].position))
        case .getConfiguration: return try configuration(message)
        default: return nil
        }
    }

    private func perform(_ request: Request, _ message: Message) throws(SessionError) {
        switch request {
        case .setOwner: break
        case .resetOwner:
            close()
            for index in vrings.indices { vrings[index].isEnabled = false }
        case .setFeatures: try setFeatures(try message.number(), message)
        case .setProtocolFeatures:
            let features = ProtocolFeatures(rawValue: try message.number())
            guard offeredProtocol.isSuperset(of: features)
            else { throw .malformed(message.header.request, "features not offered: \(features.rawValue)") }
            protocolFeatures = features
        case .setMemoryTable: try setMemory(message)
        case .setVringNumber, .setVringBase, .setVringEnable: try setState(request, message)
        case .setVringAddress: try setAddresses(message)
        case .setVringKick, .setVringCall, .setVringError: try setDescriptor(request, message)
        case .setConfiguration: throw .malformed(message.header.request, "the configuration space is read-only")
        default: throw .unsupported(message.header.request)
        }
    }

    private func setFeatures(_ accepted: UInt64, _ message: Message) throws(SessionError) {
        guard accepted & ~offered == 0 else {
            throw .malformed(message.header.request, "features not offered: \(accepted)")
        }
        guard accepted == features || !vrings.contains(where: \.isRunning)
        else { throw .malformed(message.header.request, "features changed while a ring runs") }
        features = accepted
    }

    private func setMemory(_ message: Message) throws(SessionError) {
        let new = try MemoryTable(message)
        let running = vrings.indices.filter { vrings[$0].isRunning }
        for index in running { stop(index) }
        table = new
        for index in running { startIfComplete(index) }
    }

    private func configuration(_ message: Message) throws(SessionError) -> [UInt8] {
        guard message.payload.count >= 12 else { throw .malformed(message.header.request, "too short") }
        var fields = Fields(message.payload)
        let (offset, size, flags) = (fields.u32(), fields.u32(), fields.u32())
        guard UInt64(message.payload.count) == 12 + UInt64(size)
        else { throw .malformed(message.header.request, "\(size) bytes in a payload of \(message.payload.count)") }
        let space = device.configuration
        guard UInt64(offset) + UInt64(size) <= UInt64(space.count) else {
            // An empty reply is the protocol's refusal.
            return bytes(offset) + bytes(0 as UInt32) + bytes(flags)
        }
        return bytes(offset) + bytes(size) + bytes(flags) + space[Int(offset)..<Int(offset) + Int(size)]
    }

    func vring(_ index: UInt32, _ message: Message) throws(SessionError) -> Int {
        guard index < UInt32(vrings.count) else { throw .malformed(message.header.request, "no ring \(index)") }
        return Int(index)
    }

    private func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
}
