import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import VMMControl

/// Messages of the control protocol, in both directions, and those of the host process of a container.
final class ControlTarget: FuzzTarget {
    private let memory: OwnedDescriptor
    private let null: OwnedDescriptor

    init() throws {
        memory = try OwnedDescriptor.memory("body", size: 8192)
        null = try OwnedDescriptor.open("/dev/null", O_RDWR)
    }

    func run(_ input: inout Input) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let choice = input.byte()
        if choice < 40 { return try hostProcess(&input, ours, theirs) }
        let kind = choice < 200 ? UInt16(input.byte() % 24) : UInt16(input.byte())
        let change = input.byte()
        let count = UInt16(input.byte() % 6)
        let inFile = change >= 230
        var body: [UInt8] = []
        while !input.isEmpty && body.count < 4000 { body += part(&input) }
        if inFile { body.withUnsafeBytes { _ = pwrite(memory.raw, $0.baseAddress, $0.count, 0) } }
        var attached = Array(repeating: null.raw, count: Int(count))
        if inFile { attached.append(memory.raw) }
        let length = change == 1 ? UInt32(input.number() & 0x1f_ffff) : UInt32(body.count)
        let header =
            wire(change == 2 ? 0 : ControlProtocol.magic) + wire(change == 3 ? 7 : ControlProtocol.version) + wire(kind)
            + wire(UInt64(choice)) + wire(length) + wire(UInt16(attached.count) + (change == 4 ? 1 : 0))
            + wire(UInt16(change == 5 ? 2 : inFile ? 1 : 0))
        let bytes = header + (inFile ? [] : body)
        _ = martlet_send_descriptors(
            ours.raw, bytes, bytes.count, attached, Int32(attached.count), Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        shutdown(ours.raw, Int32(SHUT_WR))
        let socket = ControlSocket(theirs)
        if choice & 1 == 0 {
            _ = try socket.receiveRequest()
        } else if let (_, answer) = try socket.receiveAnswer() {
            try again(answer)
        }
    }

    /// A field of a message: a number, a flag, or text after its length.
    private func part(_ input: inout Input) -> [UInt8] {
        switch input.byte() % 6 {
        case 0: return [input.byte() & 1]
        case 1: return wire(input.number64())
        case 2: return wire(input.number(UInt32.self))
        case 3: return [input.byte() % 6]
        case 4: return wire(UInt32(6)) + input.take(6)
        default:
            let text = input.take(Int(input.byte() % 32))
            return wire(UInt32(text.count)) + text
        }
    }

    /// What was read is written and read again as the same.
    private func again(_ answer: ControlAnswer) throws {
        var writer = PacketWriter<Int32>()
        answer.encode(to: &writer)
        var reader = PacketReader(body: writer.body, descriptors: writer.descriptors)
        let second = try ControlAnswer(answer.kind, from: &reader)
        var writerAgain = PacketWriter<Int32>()
        second.encode(to: &writerAgain)
        var readerAgain = PacketReader(body: writerAgain.body, descriptors: writerAgain.descriptors)
        require(try ControlAnswer(second.kind, from: &readerAgain) == second, "\(second) is not the same again")
    }

    private func hostProcess(_ input: inout Input, _ ours: SharedDescriptor, _ theirs: SharedDescriptor) throws {
        let bytes = wire(HostProcessMessage.version << 16 | UInt32(input.byte() % 10)) + input.rest()
        _ = martlet_send_descriptors(
            ours.raw, bytes, bytes.count, [null.raw], Int32(bytes.count & 1), Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        shutdown(ours.raw, Int32(SHUT_WR))
        if let (message, _) = try HostProcessMessage.receive(over: theirs) {
            try message.send(over: theirs.raw)
            let again = try HostProcessMessage.receive(over: ours)
            require(again?.message == message, "\(message) is not the same again")
        }
    }
}
