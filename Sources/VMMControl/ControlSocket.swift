import CLinux
import Glibc
public import LinuxSystem

/// A SOCK_SEQPACKET socket that carries the control protocol. Sending is thread-safe; one thread receives.
public struct ControlSocket: Sendable {
    public let socket: SharedDescriptor

    public init(_ socket: SharedDescriptor) { self.socket = socket }

    /// Sends a request with copies of its descriptors; waits as long as the socket's send timeout lets it.
    public func send(_ request: ControlRequest<Int32>, sequence: UInt64) throws(SystemError) {
        var writer = PacketWriter<Int32>()
        request.encode(to: &writer)
        try send(
            .init(
                kind: request.kind.rawValue, sequence: sequence, body: writer.body, descriptors: writer.descriptors),
            name: request.name)
    }

    /// Sends the reply to the request of the same `sequence`.
    public func send(_ reply: ControlReply, sequence: UInt64) throws(SystemError) {
        try send(.reply(reply), sequence: sequence)
    }

    /// Sends an event.
    public func send(_ event: ControlEvent) throws(SystemError) { try send(.event(event), sequence: 0) }

    private func send(_ answer: ControlAnswer, sequence: UInt64) throws(SystemError) {
        var writer = PacketWriter<Int32>()
        answer.encode(to: &writer)
        try send(
            .init(kind: answer.kind.rawValue, sequence: sequence, body: writer.body, descriptors: []),
            name: "\(answer.kind)")
    }

    private func send(_ packet: ControlPacket<Int32>, name: String) throws(SystemError) {
        if ControlProtocol.headerSize + packet.body.count <= ControlProtocol.maximumPacket {
            return try send(packet, inline: packet.body, descriptors: packet.descriptors, name)
        }
        guard packet.body.count <= ControlProtocol.maximumBody else {
            throw SystemError("send control message", "\(name) of \(packet.body.count) bytes", errno: .messageTooLong)
        }
        let file = try OwnedDescriptor.memory("control \(name)", size: 0)
        try writeAll(packet.body, to: file.raw, "control message \(name)")
        try file.seal(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
        try send(packet, inline: nil, descriptors: packet.descriptors + [file.raw], name)
    }

    /// - Parameter inline: the body; nil: it is in the last of `descriptors`.
    private func send(
        _ packet: ControlPacket<Int32>, inline: [UInt8]?, descriptors: [Int32], _ name: String
    ) throws(SystemError) {
        let header = ControlPacket<Int32>.Header(
            kind: packet.kind, sequence: packet.sequence, bodyLength: packet.body.count,
            descriptorCount: descriptors.count, isBodyInFile: inline == nil)
        let bytes = header.bytes + (inline ?? [])
        let sent = martlet_send_descriptors(
            socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_NOSIGNAL))
        try check("send control message", name, sent)
    }

    /// Waits for a request; nil when the peer has closed.
    ///
    /// - Throws: `ControlError.refused` for a request that can be answered with its reason; after any other error the
    ///   socket is of no more use.
    public func receiveRequest() throws(ControlError) -> (
        sequence: UInt64, request: ControlRequest<SharedDescriptor>
    )? {
        guard let packet = try receive(filesAllowed: true) else { return nil }
        guard let kind = ControlRequestKind(rawValue: packet.kind) else {
            throw .refused(sequence: packet.sequence, "request \(packet.kind) is unknown")
        }
        var reader = PacketReader(body: packet.body, descriptors: packet.descriptors)
        do throws(FieldError) {
            return (packet.sequence, try ControlRequest(kind, from: &reader))
        } catch {
            throw .refused(sequence: packet.sequence, "request \(kind): \(error.reason)")
        }
    }

    /// Waits for a reply or an event; nil when the peer has closed.
    func receiveAnswer() throws(ControlError) -> (sequence: UInt64, answer: ControlAnswer)? {
        guard let packet = try receive(filesAllowed: false) else { return nil }
        guard let kind = ControlAnswer.Kind(rawValue: packet.kind) else {
            throw .refused(sequence: packet.sequence, "message \(packet.kind) is unknown")
        }
        var reader = PacketReader(body: packet.body, descriptors: packet.descriptors)
        do throws(FieldError) {
            return (packet.sequence, try ControlAnswer(kind, from: &reader))
        } catch {
            throw .refused(sequence: packet.sequence, "message \(kind): \(error.reason)")
        }
    }

    /// - Parameter filesAllowed: whether the peer is trusted with a body in a file, which it could make slow to read.
    private func receive(filesAllowed: Bool) throws(ControlError) -> ControlPacket<SharedDescriptor>? {
        let limit = ControlProtocol.maximumDescriptors
        var bytes = [UInt8](repeating: 0, count: ControlProtocol.maximumPacket)
        var numbers = [Int32](repeating: -1, count: limit)
        var count: Int32 = 0
        let received = martlet_receive_descriptors(socket.raw, &bytes, bytes.count, &numbers, Int32(limit), &count, 0)
        if received < 0 {
            if errno == ECONNRESET { return nil }
            throw .system(.last("receive control message"))
        }
        var descriptors = numbers.prefix(Int(count)).map { SharedDescriptor(OwnedDescriptor(owning: $0)) }
        if received == 0 { return nil }
        // A closure would lose the error's type.
        let result: Result<ControlPacket<SharedDescriptor>.Header, ControlError> = bytes[..<received].withUnsafeBytes {
            packet in
            Result { () throws(ControlError) in try .init(packet, descriptors: descriptors.count) }
        }
        let header = try result.get()
        var body = Array(bytes[ControlProtocol.headerSize..<received])
        if header.isBodyInFile {
            guard filesAllowed, let file = descriptors.popLast() else {
                throw .refused(sequence: header.sequence, "message \(header.kind): its body is in a file")
            }
            do throws(SystemError) {
                body = try file.readAll(header.bodyLength, "control message \(header.kind)")
            } catch {
                throw .refused(sequence: header.sequence, "message \(header.kind): \(error)")
            }
        }
        return .init(kind: header.kind, sequence: header.sequence, body: body, descriptors: descriptors)
    }
}

extension SharedDescriptor {
    /// The first `count` bytes of a file.
    fileprivate func readAll(_ count: Int, _ name: String) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result: Result<Int, SystemError> = bytes.withUnsafeMutableBytes { buffer in
            Result { () throws(SystemError) in try LinuxSystem.readAll(into: buffer, from: raw, at: 0, name) }
        }
        let done = try result.get()
        guard done == count else { throw SystemError("read", "\(name): \(done) of \(count) bytes", errno: .ioError) }
        return bytes
    }
}
