import CLinux
import Glibc
import LinuxSystem
import Synchronization

@testable import VhostUser
@testable import Virtio

/// A back end without a device, on a thread: it answers as the protocol says, but for one answer.
final class ScriptedBackEnd: @unchecked Sendable {
    /// What is wrong with an answer.
    enum Fault: CaseIterable {
        case shortPayload, longPayload, emptyPayload, otherRequest, noReplyFlag, otherVersion, hugeLength
        case descriptors, hangUp, hangUpInside, silence, trickle, nonsense, wrongContent, wrongBit
    }

    // Set before `run`.
    var features: UInt64 = 1 << 30 | RingFeatures.all.rawValue
    var protocolFeatures: UInt64 = 0x209
    var queues: UInt64 = 2
    /// The answer that is wrong, counted from 0, and how.
    var fault: (answer: Int, Fault)?

    private let socket: SharedDescriptor
    private let requests = Mutex<(log: [Request], features: UInt64, answers: Int)>(([], 0, 0))

    init(_ socket: SharedDescriptor) { self.socket = socket }

    /// What was asked so far.
    var log: [Request] { requests.withLock { $0.log } }
    var lastFeatures: UInt64 { requests.withLock { $0.features } }
    /// How many answers were given, or were to be.
    var answers: Int { requests.withLock { $0.answers } }

    func run() throws {
        try startThread("scripted") { [self] in
            while let header = receive(12), let next = answer(header), next {}
            shutdown(socket.raw, Int32(SHUT_RDWR))
        }
    }

    private func receive(_ count: Int) -> [UInt8]? {
        if count == 0 { return [] }
        var bytes = [UInt8](repeating: 0, count: count)
        // Descriptors that are not received are closed.
        let received = recv(socket.raw, &bytes, count, Int32(MSG_WAITALL))
        return received == count ? bytes : nil
    }

    /// False to hang up, nil when the front end has.
    private func answer(_ header: [UInt8]) -> Bool? {
        var fields = Fields(header)
        let (number, flags, length) = (fields.u32(), fields.u32(), Int(fields.u32()))
        guard let request = Request(rawValue: number), let payload = receive(length) else { return nil }
        var content = Fields(payload)
        requests.withLock {
            $0.log.append(request)
            if request == .setFeatures { $0.features = content.u64() }
        }
        guard var reply = reply(request, payload, needsReply: flags & MessageHeader.needsReply != 0) else {
            return true
        }
        let index = requests.withLock { state in
            defer { state.answers += 1 }
            return state.answers
        }
        guard let fault, fault.answer == index else {
            return send(number, reply)
        }
        switch fault.1 {
        case .shortPayload: reply.removeLast()
        case .longPayload: reply.append(0)
        case .emptyPayload: reply = []
        case .wrongContent: reply = reply.map { ~$0 }
        case .wrongBit: reply[0] ^= 1
        case .otherRequest: return send(number == 1 ? 17 : 1, reply)
        case .noReplyFlag: return send(number, reply, flags: 1)
        case .otherVersion: return send(number, reply, flags: 6)
        case .hugeLength: return write(FakeFrontEnd.bytes(number, 5 as UInt32, UInt32.max))
        case .descriptors: return write(FakeFrontEnd.message(number, reply, flags: 5), [0, 1, 2])
        case .hangUp: return false
        case .hangUpInside:
            _ = write(Array(FakeFrontEnd.message(number, reply, flags: 5).dropLast()))
            return false
        case .silence:
            // Until the front end closes the connection.
            while receive(1) != nil {}
            return nil
        case .trickle:
            // Always something, never all of it in time.
            for byte in FakeFrontEnd.message(number, reply, flags: 5) {
                usleep(30_000)
                if !write([byte]) { return nil }
            }
            return true
        case .nonsense: return write([UInt8](repeating: 0xff, count: 1000))
        }
        return send(number, reply)
    }

    private func reply(_ request: Request, _ payload: [UInt8], needsReply: Bool) -> [UInt8]? {
        switch request {
        case .getFeatures: FakeFrontEnd.bytes(features)
        case .getProtocolFeatures: FakeFrontEnd.bytes(protocolFeatures)
        case .getQueueNumber: FakeFrontEnd.bytes(queues)
        case .getConfiguration: payload
        case .getVringBase: Array(payload.prefix(4)) + FakeFrontEnd.bytes(7 as UInt32)
        default: needsReply ? FakeFrontEnd.bytes(0 as UInt64) : nil
        }
    }

    private func send(_ request: UInt32, _ payload: [UInt8], flags: UInt32 = 5) -> Bool {
        write(FakeFrontEnd.message(request, payload, flags: flags))
    }

    private func write(_ bytes: [UInt8], _ descriptors: [Int32] = []) -> Bool {
        martlet_send_descriptors(socket.raw, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
            == bytes.count
    }
}
