import NIOCore
import Testing

@testable import TTRPC

/// Cutting bytes into frames.
@Suite struct FrameTests {
    private static func header(_ length: UInt32, stream: UInt32 = 1, type: UInt8 = 1, flags: UInt8 = 0) -> [UInt8] {
        [length, stream].flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) } }
            + [type, flags]
    }

    private static func events(_ bytes: [UInt8], piece: Int) -> [FrameParser.Event] {
        var parser = FrameParser()
        var events: [FrameParser.Event] = []
        for start in stride(from: 0, to: bytes.count, by: piece) {
            parser.append(ByteBuffer(bytes: bytes[start..<min(start + piece, bytes.count)]))
            while let event = parser.next() { events.append(event) }
        }
        return events
    }

    @Test func aFrameHasTheHeaderOfTheProtocol() {
        var buffer = ByteBuffer()
        buffer.writeFrame(.data, stream: 0x0102_0305, flags: [.remoteClosed, .noData], [0xaa, 0xbb])
        #expect(Array(buffer.readableBytesView) == [0, 0, 0, 2, 1, 2, 3, 5, 3, 5, 0xaa, 0xbb])
    }

    @Test(arguments: [1, 3, 10, 11, 4096, 1 << 20])
    func framesComeOutWhateverThePieces(piece: Int) {
        let long = [UInt8](repeating: 7, count: 100_000)
        let bytes =
            Self.header(0, stream: 3, type: 3, flags: 5) + Self.header(2) + [1, 2]
            + Self.header(100_000, stream: 5, type: 2) + long
        let frames = Self.events(bytes, piece: piece).map { event in
            if case .frame(let frame) = event { frame } else { Frame?.none }
        }
        #expect(frames.map { $0?.header.stream } == [3, 1, 5])
        #expect(frames.map { $0?.payload } == [[], [1, 2], long])
        #expect(frames.first??.header.flags == [.remoteClosed, .noData])
    }

    @Test(arguments: [1000, 1 << 16])
    func aMessageOverTheLimitIsDroppedAndReported(piece: Int) {
        let longest = UInt32(FrameHeader.longest)
        let bytes =
            Self.header(longest + 1, stream: 7) + [UInt8](repeating: 1, count: FrameHeader.longest + 1)
            + Self.header(1, stream: 9) + [5]
        let events = Self.events(bytes, piece: piece)
        #expect(events.count == 2)
        guard case .oversized(let header) = events.first, case .frame(let frame) = events.last else {
            Issue.record("got \(events.count) other events")
            return
        }
        #expect(header.stream == 7 && header.length == longest + 1)
        #expect(frame.header.stream == 9 && frame.payload == [5])
    }

    @Test func aMessageOfTheLimitIsTaken() {
        let bytes = Self.header(UInt32(FrameHeader.longest)) + [UInt8](repeating: 1, count: FrameHeader.longest)
        guard case .frame(let frame) = Self.events(bytes, piece: 1 << 20).first else {
            Issue.record("not a frame")
            return
        }
        #expect(frame.payload.count == FrameHeader.longest)
    }
}
