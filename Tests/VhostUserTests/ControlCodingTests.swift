import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import VMMControl

/// The packets of the control protocol, well-formed and not.
@Suite(.timeLimit(.minutes(1))) struct ControlCodingTests {
    /// One of each, with descriptors 10, 11, …
    private static let requests: [ControlRequest<Int32>] = [
        .startVsock(vhostUser: 10, guestCID: .max),
        .startFiles(vhostUser: 10, tag: "martlet", memoryLimit: 1 << 40, allowsDevices: true),
        .startBlock(vhostUser: 10, files: DiskFiles(11), readOnly: true, id: "größe", queues: 4),
        .startRelayedFiles(
            relay: .init(area: 10, request: 11, reply: 12), tag: "t", memoryLimit: 1 << 30, allowsDevices: false),
        .addRelayedFiles(relay: .init(area: 10, request: 11, reply: 12), tag: "t"),
        .restore(state: 10, resetsConnections: true),
        .save(state: 10, memory: 11),
        .addShare(name: "a", tree: 10, readOnly: false), .removeShare(name: ""), .saveFiles(file: 10),
        .restoreFiles(file: 10),
        .connect(port: 1024, stream: 10, timeout: .milliseconds(1500)), .statistics,
        .machine(
            kvm: 10, memory: 11,
            layout: .init(
                memoryBytes: 1 << 40, hotplugBytes: 1 << 36, isPrivate: true, vcpus: 3, maximumVCPUs: 32,
                cpu: GuestCPU(profile: .level3, nested: true))),
        .addMemory, .setMemory(bytes: 1 << 33), .setVCPUs(count: 7),
        .addRootImage(file: 10), .addConsole(output: 10, kind: .serial),
        .addEntropy, .addBalloon(reportsFreePages: true), .setBalloon(bytes: 1 << 33), .addVsock(guestCID: 3),
        .addFiles(vhostUser: 10, tag: "t"),
        .addBlock(files: DiskFiles(files: [10, 11, 12], bytes: [4096, 1, 0]), readOnly: true, id: "i", queues: 1),
        .removeBlock(id: "i"), .boot(kernel: 10, initramfs: nil, commandLine: "quiet"),
        .boot(kernel: 10, initramfs: 11, commandLine: ""), .pressPowerButton, .pause, .resume,
        .addNetwork(queues: [10, 11, 12], hardwareAddress: [1, 2, 3, 4, 5, 6]),
        .removeNetwork(hardwareAddress: [1, 2, 3, 4, 5, 6]),
        .setNetworkLink(hardwareAddress: [1, 2, 3, 4, 5, 6], isUp: true),
    ]

    private func written(_ request: ControlRequest<Int32>) -> PacketWriter<Int32> {
        var writer = PacketWriter<Int32>()
        request.encode(to: &writer)
        return writer
    }

    private func decode(
        _ kind: ControlRequestKind, _ body: [UInt8], _ descriptors: [Int32]
    ) -> Result<ControlRequest<Int32>, FieldError> {
        var reader = PacketReader(body: body, descriptors: descriptors)
        return Result { () throws(FieldError) in try ControlRequest(kind, from: &reader) }
    }

    @Test func eachRequestIsReadAsItWasWritten() throws {
        #expect(Set(Self.requests.map(\.kind)) == Set(ControlRequestKind.allCases))
        for request in Self.requests {
            let writer = written(request)
            let read = try decode(request.kind, writer.body, writer.descriptors).get()
            #expect("\(read)" == "\(request)")
        }
    }

    @Test func nothingMayBeMissingOrLeftOver() {
        func refusal(_ request: ControlRequest<Int32>, _ change: (inout [UInt8], inout [Int32]) -> Void) -> String {
            let writer = written(request)
            var (body, descriptors) = (writer.body, writer.descriptors)
            change(&body, &descriptors)
            guard case .failure(let error) = decode(request.kind, body, descriptors) else { return "read" }
            return error.reason
        }
        for request in Self.requests {
            #expect(refusal(request) { body, _ in body.append(0) } == "1 bytes too many")
            #expect(refusal(request) { _, descriptors in descriptors.append(1) } == "1 descriptors too many")
            if !written(request).body.isEmpty {
                #expect(refusal(request) { body, _ in body.removeLast() }.hasSuffix(" is cut off"))
            }
            if !written(request).descriptors.isEmpty {
                #expect(refusal(request) { _, all in all.removeLast() }.hasPrefix("no descriptor for "))
            }
        }
        #expect(
            refusal(.machine(kvm: 1, memory: 2, layout: .init(memoryBytes: 1, vcpus: 1))) { $1 = [1] }
                == "no descriptor for memory")
        #expect(refusal(.removeShare(name: "x")) { body, _ in body[4] = 0xff } == "name is not UTF-8")
        #expect(refusal(.removeNetwork(hardwareAddress: [1])) { _, _ in } == "hardwareAddress has 1 bytes, not 6")
        #expect(
            refusal(.addBlock(files: DiskFiles(1), readOnly: true, id: "", queues: 1)) { body, _ in body[10] = 2 }
                == "readOnly is 2, not 0 or 1")
        let none = DiskFiles<Int32>(files: [], bytes: [])
        #expect(refusal(.addBlock(files: none, readOnly: true, id: "", queues: 1)) { _, _ in } == "0 files")
        #expect(refusal(.addConsole(output: 1, kind: .virtio)) { body, _ in body[0] = 9 } == "kind 9 is unknown")
        #expect(
            refusal(.addNetwork(queues: [], hardwareAddress: [1, 2, 3, 4, 5, 6])) { _, _ in } == "no queues")
    }

    /// Sends `packet` with `descriptors` copies of a descriptor, and answers what the receiver of requests makes of it.
    private func receive(_ packet: [UInt8], descriptors: Int = 0, file: Int32? = nil) throws -> String {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let numbers = [Int32](repeating: ours.raw, count: descriptors) + (file.map { [$0] } ?? [])
        let sent = martlet_send_descriptors(ours.raw, packet, packet.count, numbers, Int32(numbers.count), 0)
        #expect(sent == packet.count)
        do {
            guard let (sequence, request) = try ControlSocket(theirs).receiveRequest() else { return "closed" }
            return "\(sequence) \(request.name)"
        } catch {
            return "\(error)"
        }
    }

    private func header(
        _ kind: ControlRequestKind, _ length: Int, descriptors: Int = 0, isBodyInFile: Bool = false
    ) -> [UInt8] {
        ControlPacket<Int32>.Header(
            kind: kind.rawValue, sequence: 5, bodyLength: length, descriptorCount: descriptors,
            isBodyInFile: isBodyInFile
        ).bytes
    }

    @Test func aBadPacketIsRefusedByName() throws {
        #expect(try receive(header(.pause, 0)) == "5 pause")
        #expect(try receive([1, 2, 3]) == "malformed control message of 3 bytes")
        #expect(try receive(Array(header(.pause, 0).prefix(20))) == "malformed control message of 20 bytes")
        var packet = header(.pause, 0)
        packet[4] = 1
        #expect(
            try receive(packet) == "the peer speaks version 1 of the control protocol, this program version 7")
        packet = header(.pause, 0)
        packet[7] = 1
        #expect(try receive(packet) == "control request 296 is unknown")
        packet = header(.pause, 0)
        packet[22] = 2
        #expect(try receive(packet) == "control message 40: flags 2 are unknown")
        #expect(
            try receive(header(.pause, 4)) == "control message 40: a body of 4 bytes, 0 of them in the packet")
        #expect(
            try receive(header(.pause, 0, descriptors: 1))
                == "control message 40: 1 descriptors announced, 0 came")
        #expect(try receive(header(.pause, 0), descriptors: 1) == "control message 40: 0 descriptors announced, 1 came")
        #expect(
            try receive(header(.pause, 1 << 21, descriptors: 1, isBodyInFile: true), descriptors: 1)
                == "control message 40: a body of 2097152 bytes")
        #expect(
            try receive(header(.pause, 9, descriptors: 1, isBodyInFile: true), descriptors: 1)
                == "control message 40: read control message 40: Illegal seek")
        let file = try OwnedDescriptor.memory("short", size: 3)
        #expect(
            try receive(header(.pause, 9, descriptors: 1, isBodyInFile: true), file: file.raw)
                .hasPrefix("control message 40: read control message 40: 3 of 9 bytes"))
        #expect(
            try receive(header(.boot, 0, descriptors: 1), descriptors: 1)
                == "control request boot: initramfs is cut off")
    }

    /// The largest reply fits in a packet: a jailed process can't make a memory file for it.
    @Test func statisticsAreReadAsTheyWereWritten() throws {
        let queues = (0..<80).map { number in
            ProcessStatistics.Queue(
                device: .network, number: UInt8(number), queue: 2, chains: .max, interrupts: 1, read: 2, written: 3)
        }
        let operations = FileOperationKind.allCases.map { kind in
            ProcessStatistics.Operations(kind: kind, nanoseconds: .max, counts: (0..<10).map { UInt64($0) })
        }
        var statistics = ProcessStatistics(
            queues: queues, operations: operations, connections: .init(current: 4, toGuest: 5, fromGuest: .max),
            balloon: .init(target: 1, size: 2, reported: nil, free: .max, available: nil, caches: 4),
            hotplug: .init(vcpus: 3, requested: 1 << 40, plugged: 5))
        var writer = PacketWriter<Int32>()
        statistics.encode(to: &writer)
        #expect(writer.body.count + ControlProtocol.headerSize <= ControlProtocol.maximumPacket)
        var reader = PacketReader<Int32>(body: writer.body, descriptors: [])
        statistics.queues.removeLast(80 - ProcessStatistics.mostQueues)
        #expect(try ProcessStatistics(from: &reader) == statistics)
        try reader.finish()
        var body = writer.body
        body[1] = 99
        reader = PacketReader(body: body, descriptors: [])
        #expect(throws: FieldError.self) { try ProcessStatistics(from: &reader) }
    }

    /// Bytes that came about by chance are refused or read, and never end the process.
    @Test func chanceIsNoDanger() throws {
        var random = SystemRandomNumberGenerator()
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let socket = ControlSocket(theirs)
        var refused = 0
        for round in 0..<20_000 {
            let request = Self.requests[round % Self.requests.count]
            let writer = written(request)
            var packet = header(request.kind, writer.body.count, descriptors: 0) + writer.body
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let index = Int.random(in: 0..<packet.count, using: &random)
                packet[index] = UInt8.random(in: 0...255, using: &random)
            }
            if round % 3 == 0 { packet.removeLast(Int.random(in: 0..<packet.count, using: &random)) }
            #expect(send(ours.raw, packet, packet.count, 0) == packet.count)
            do { _ = try socket.receiveRequest() } catch { refused += 1 }
            // The same as a process's answer.
            let kind = ControlAnswer.Kind.allCases[round % ControlAnswer.Kind.allCases.count]
            var reader = PacketReader<Int32>(body: packet, descriptors: [])
            _ = try? ControlAnswer(kind, from: &reader)
        }
        #expect(refused > 10_000)
    }
}
