import AgentContract
import Testing

@Suite struct TargetTests {
    @Test func streamsToTargetsHaveNumbersOfTheirOwn() {
        #expect(StreamNumber.targetConnection(of: StreamNumber.targets) == 0)
        #expect(StreamNumber.targetConnection(of: StreamNumber.targetConnection(7)) == 7)
        for other in [0, 7, StreamNumber.loopback(port: 7), .max] as [UInt64] {
            #expect(StreamNumber.targetConnection(of: other) == nil)
        }
        #expect(StreamNumber.loopbackPort(StreamNumber.targetConnection(7)) == nil)
    }

    @Test func messagesComeBackAsTheyWere() {
        for message in [
            TargetMessage(.connect, target: 0x0102_0304, connection: 0x1112_1314_1516_1718),
            TargetMessage(.passedDescriptor, target: .max, connection: 1),
        ] {
            #expect(message.encoded.count == TargetMessage.encodedSize)
            #expect(TargetMessage(message.encoded) == message)
            // A part of others is as good.
            #expect(TargetMessage(([0] + message.encoded).dropFirst()) == message)
        }
        #expect(
            TargetMessage(.connect, target: 2, connection: 3).encoded == [
                1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
            ])
    }

    @Test func whatIsNoMessageIsRefused() {
        let good = TargetMessage(.connect, target: 1, connection: 1).encoded
        #expect(TargetMessage(good.dropLast()) == nil && TargetMessage(good + [0]) == nil && TargetMessage([]) == nil)
        var unknown = good
        unknown[0] = 3
        #expect(TargetMessage(unknown) == nil)
        // Connections that no stream's number can name.
        #expect(TargetMessage(TargetMessage(.connect, target: 1, connection: 0).encoded) == nil)
        #expect(TargetMessage(TargetMessage(.connect, target: 1, connection: 1 << 62).encoded) == nil)
    }

    @Test func datagramsComeInAnyParts() throws {
        let datagrams: [[UInt8]] = [[1, 2, 3], [], .init(repeating: 9, count: 65535), [4]]
        let bytes = try datagrams.flatMap { try #require(DatagramFrames.encoded($0)) }
        for size in [1, 2, 3, 1000, bytes.count] {
            var frames = DatagramFrames()
            var found: [[UInt8]] = []
            for start in stride(from: 0, to: bytes.count, by: size) {
                frames.append(bytes[start..<min(start + size, bytes.count)])
                while let next = frames.next() { found.append(next) }
            }
            #expect(found == datagrams, "in parts of \(size)")
        }
        #expect(DatagramFrames.encoded([UInt8](repeating: 0, count: 65536)) == nil)
    }
}
