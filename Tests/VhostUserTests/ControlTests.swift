import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import VMMControl

/// Control messages and the host's client, against a device that the test plays itself.
@Suite(.timeLimit(.minutes(1))) struct ControlTests {
    @Test func aMessageIsItsBytes() throws {
        var message = ControlMessage(.connect, sequence: 0x0102_0304_0506_0708)
        message.number = .max
        message.port = 1024
        message.flags = 1
        message.status = .timedOut
        message.text = "größe"
        let bytes = message.bytes
        #expect(bytes.count == ControlMessage.size)
        #expect(Array(bytes.prefix(16)) == Array("MVC1".utf8) + [5, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1])
        #expect(bytes.withUnsafeBytes { ControlMessage($0) } == message)
        message.text = String(repeating: "x", count: 1000)
        #expect(message.bytes.withUnsafeBytes { ControlMessage($0) }?.text.count == ControlMessage.maximumText)
    }

    @Test func otherBytesAreNoMessage() {
        let good = ControlMessage(.reply).bytes
        #expect(good.dropLast().withUnsafeBytes { ControlMessage($0) } == nil)
        #expect((good + [0]).withUnsafeBytes { ControlMessage($0) } == nil)
        for (place, value): (Int, UInt8) in [(0, 0), (4, 0), (4, 67), (7, 1), (32, 9), (36, 255), (37, 2), (39, 128)] {
            var bytes = good
            bytes[place] = value
            if place == 36 { bytes[37] = 1 }
            #expect(bytes.withUnsafeBytes { ControlMessage($0) } == nil, "byte \(place)")
        }
    }

    /// Answers what comes as `answer` says; nil: not at all.
    private func peer(
        _ socket: SharedDescriptor, _ answer: @Sendable @escaping (ControlMessage, Int) -> ControlMessage?
    ) throws {
        let control = ControlSocket(socket)
        try startThread("peer") {
            while let received = try? control.receive() {
                guard let reply = answer(received.0, received.1.count) else { continue }
                do { try control.send(reply) } catch { return }
            }
        }
    }

    @Test func answersFindTheirQuestions() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        try peer(theirs) { message, descriptors in
            var reply = ControlMessage(.reply, sequence: message.sequence)
            switch (message.kind, descriptors) {
            case (.startVsock, 1): reply.status = message.number == 9 ? .done : .failed
            case (.connect, 1): reply.status = .init(rawValue: message.port) ?? .failed
            case (.addShare, 1):
                reply.status = .failed
                reply.text = "\(message.text) \(message.flags)"
            case (.removeShare, 0): return nil
            default: reply.status = .failed
            }
            return reply
        }
        let client = ControlClient(control: ours) { _ in }
        let file = try OwnedDescriptor.memory("x", size: 1)
        try client.startVsock(vhostUser: file.raw, guestCID: 9).wait()
        try client.connect(port: 0, stream: file.raw, deadline: .seconds(1))
        for (port, error): (UInt32, DeviceError) in [(2, .refused), (3, .notReady), (4, .timedOut), (1, .failed(""))] {
            #expect(throws: error) { try client.connect(port: port, stream: file.raw, deadline: .seconds(1)) }
        }
        #expect(throws: DeviceError.failed("name 1")) {
            try client.addShare(name: "name", directory: file.raw, readOnly: true)
        }
        #expect(throws: DeviceError.self) {
            try client.addShare(name: String(repeating: "n", count: 300), directory: file.raw, readOnly: true)
        }
    }

    @Test func noAnswerInTime() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        try peer(theirs) { _, _ in nil }
        let client = ControlClient(control: ours) { _ in }
        let start = ContinuousClock.now
        #expect(throws: DeviceError.timedOut) { try client.connect(port: 1, stream: 0, deadline: .milliseconds(1)) }
        #expect(ContinuousClock.now - start < .seconds(8))
    }

    @Test func noticesAndTheEnd() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let closed = try Promise<Void>()
        let broken = try Promise<String>()
        let client = ControlClient(control: ours) { notice in
            switch notice {
            case .broken(let reason): broken.settle(reason)
            case .closed: closed.settle(())
            case .ended: Issue.record("a device has no machine to end")
            }
        }
        var message = ControlMessage(.broken)
        message.text = "descriptor loop"
        try ControlSocket(theirs).send(message)
        #expect(broken.wait(timeout: .seconds(5)) == "descriptor loop")
        shutdown(theirs.raw, Int32(SHUT_RDWR))
        #expect(closed.wait(timeout: .seconds(5)) != nil)
        #expect(throws: DeviceError.closed) { try client.removeShare(name: "x") }
    }

    @Test func aDeviceThatSpeaksNonsense() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let broken = try Promise<String>()
        let client = ControlClient(control: ours) { if case .broken(let reason) = $0 { broken.settle(reason) } }
        #expect(send(theirs.raw, "hello", 5, 0) == 5)
        #expect(broken.wait(timeout: .seconds(5)) == "malformed control message of 5 bytes")
        #expect(throws: DeviceError.self) { try client.removeShare(name: "x") }
    }
}
