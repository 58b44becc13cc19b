import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import VMMControl

/// The host's client of the control socket, against a process that the test plays itself.
@Suite(.timeLimit(.minutes(1))) struct ControlTests {
    /// Answers what comes as `answer` says; nil: not at all.
    private func peer(
        _ socket: SharedDescriptor,
        _ answer: @Sendable @escaping (ControlRequest<SharedDescriptor>) -> ControlReply?
    ) throws {
        let control = ControlSocket(socket)
        try startThread("peer") {
            while let (sequence, request) = try? control.receiveRequest() {
                guard let reply = answer(request) else { continue }
                do { try control.send(reply, sequence: sequence) } catch { return }
            }
        }
    }

    @Test func repliesFindTheirRequests() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        try peer(theirs) { request in
            switch request {
            case .startVsock(_, let guestCID): return guestCID == 9 ? .done : .failed(reason: "")
            case .connect(let port, _, _):
                return [.done, .failed(reason: ""), .refused, .notReady, .timedOut][Int(port)]
            case .addShare(let name, _, let readOnly): return .failed(reason: "\(name) \(readOnly)")
            case .saveFiles: return .saved(bytes: 7)
            case .restoreFiles: return .failed(reason: "x is not there")
            case .boot(_, _, let commandLine): return .booted(firstInstruction: UInt64(commandLine.utf8.count))
            default: return nil
            }
        }
        let client = ControlClient(control: ours) { _ in }
        let file = try OwnedDescriptor.memory("x", size: 1)
        #expect(try client.startVsock(vhostUser: file.raw, guestCID: 9).wait() == .done)
        try client.connect(port: 0, stream: file.raw, deadline: .seconds(1))
        for (port, error): (UInt32, DeviceError) in [(2, .refused), (3, .notReady), (4, .timedOut), (1, .failed(""))] {
            #expect(throws: error) { try client.connect(port: port, stream: file.raw, deadline: .seconds(1)) }
        }
        #expect(throws: DeviceError.failed("name true")) {
            try client.addShare(name: "name", directory: file.raw, readOnly: true)
        }
        #expect(try client.saveFiles(to: file.raw) == 7)
        #expect(throws: DeviceError.failed("x is not there")) { try client.restoreFiles(from: file.raw) }
        // Two requests on their way; the second reply is asked for first. One of them does not fit in a packet.
        let long = try client.boot(
            kernel: file.raw, initramfs: nil, commandLine: String(repeating: "x", count: 100_000))
        let short = try client.boot(kernel: file.raw, initramfs: nil, commandLine: "abc")
        #expect(try short.wait() == .booted(firstInstruction: 3))
        #expect(try long.wait() == .booted(firstInstruction: 100_000))
    }

    @Test func noReplyInTime() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        try peer(theirs) { _ in nil }
        let client = ControlClient(control: ours) { _ in }
        let start = ContinuousClock.now
        #expect(throws: DeviceError.timedOut) { try client.connect(port: 1, stream: 0, deadline: .milliseconds(1)) }
        #expect(ContinuousClock.now - start < .seconds(8))
    }

    @Test func eventsAndTheEnd() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let closed = try Promise<Void>()
        let events = Mutex<[ControlEvent]>([])
        let client = ControlClient(
            control: ours, onEvent: { event in events.withLock { $0.append(event) } }, onClose: { closed.settle(()) })
        let sent: [ControlEvent] = [
            .started, .ready, .broken(reason: "descriptor loop"), .ended(.tripleFault, reason: "größe"),
        ]
        for event in sent { try ControlSocket(theirs).send(event) }
        shutdown(theirs.raw, Int32(SHUT_RDWR))
        #expect(closed.wait(timeout: .seconds(5)) != nil)
        #expect(events.withLock { $0 } == sent)
        #expect(throws: DeviceError.closed) { try client.removeShare(name: "x") }
    }

    /// What the client says of a process that sends `packet`: in its event, and to who waits for a reply.
    private func refusal(of packet: [UInt8]) throws -> String? {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let broken = try Promise<String>()
        let client = ControlClient(control: ours) { if case .broken(let reason) = $0 { broken.settle(reason) } }
        let waiting = try client.startVsock(vhostUser: 0, guestCID: 3)
        #expect(send(theirs.raw, packet, packet.count, 0) == packet.count)
        let reason = try #require(broken.wait(timeout: .seconds(5)))
        #expect(throws: DeviceError.failed(reason)) { try waiting.wait() }
        #expect(throws: DeviceError.failed(reason)) { try client.removeShare(name: "x") }
        return reason
    }

    @Test func aProcessOfAnotherProtocolIsRefused() throws {
        #expect(try refusal(of: Array("hello".utf8)) == "malformed control message of 5 bytes")
        var packet = ControlPacket<Int32>.Header(
            kind: ControlAnswer.Kind.done.rawValue, sequence: 1, bodyLength: 0, descriptorCount: 0, isBodyInFile: false
        ).bytes
        packet[4] = 99
        #expect(
            try refusal(of: packet)
                == "the peer speaks version 99 of the control protocol, this program version 7")
        packet[4] = UInt8(ControlProtocol.version)
        packet[6] = 99
        #expect(try refusal(of: packet) == "control message 99 is unknown")
    }
}
