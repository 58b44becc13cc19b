import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import TTRPC

/// A server under bytes that no client of the protocol sends, and a client under answers that no server does.
@Suite(.serialized, .timeLimit(.minutes(3))) struct HostileTests {
    /// A blocking socket to speak raw bytes over; reads give up after five seconds.
    private final class Wire: Sendable {
        let socket: SharedDescriptor
        /// What /proc calls the other end.
        let peer: String

        init(_ socket: SharedDescriptor, peer: SharedDescriptor) throws {
            self.socket = socket
            var status = stat()
            try check("fstat", "", fstat(peer.raw, &status))
            self.peer = "socket:[\(status.st_ino)]"
            var timeout = timeval(tv_sec: 5, tv_usec: 0)
            try check("setsockopt", "", setsockopt(socket.raw, SOL_SOCKET, SO_RCVTIMEO, &timeout, 16))
            try check("setsockopt", "", setsockopt(socket.raw, SOL_SOCKET, SO_SNDTIMEO, &timeout, 16))
        }

        /// Answers false when the other side has closed.
        @discardableResult
        func send(_ bytes: [UInt8]) -> Bool {
            var sent = 0
            while sent < bytes.count {
                let count = bytes.withUnsafeBytes {
                    Glibc.send(socket.raw, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
                }
                if count <= 0 { return false }
                sent += count
            }
            return true
        }

        /// The next frame; nil at the end of the connection or after five seconds.
        func receive() async throws -> Frame? { try await onThread("wire") { self.blockingReceive() } }

        func response() async throws -> WireResponse? {
            try await receive().map { try WireResponse(serializedBytes: $0.payload) }
        }

        private func blockingReceive() -> Frame? {
            guard let head = read(FrameHeader.size) else { return nil }
            let length = head[0..<4].reduce(0) { $0 << 8 | Int($1) }
            let stream = head[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            guard let body = read(length) else { return nil }
            let header = FrameHeader(
                length: UInt32(length), stream: stream, type: head[8], flags: FrameFlags(rawValue: head[9]))
            return Frame(header: header, payload: body)
        }

        private func read(_ count: Int) -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: count)
            var got = 0
            while got < count {
                let here = bytes.withUnsafeMutableBytes {
                    recv(socket.raw, $0.baseAddress?.advanced(by: got), count - got, 0)
                }
                if here <= 0 { return nil }
                got += here
            }
            return bytes
        }
    }

    private static func frame(
        _ payload: [UInt8] = [], stream: UInt32, type: UInt8 = 1, flags: UInt8 = 0, length: UInt32? = nil
    ) -> [UInt8] {
        [length ?? UInt32(payload.count), stream].flatMap { word in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) }
        } + [type, flags] + payload
    }

    private static func request(
        _ method: String, _ item: ProbeItem = ProbeItem(), timeout: Int64 = 0
    ) throws -> [UInt8] {
        var request = WireRequest()
        request.service = "martlet.test.v1.Probe"
        request.method = method
        request.payload = try item.serializedBytes()
        request.timeoutNano = timeout
        return try request.serializedBytes()
    }

    private static func connect(_ server: TTRPCServer) async throws -> Wire {
        let (near, far) = try SharedDescriptor.socketPair(SOCK_STREAM)
        try await server.serve(connected: far)
        return try Wire(near, peer: far)
    }

    /// What the descriptors of this process are.
    private static func openFiles() throws -> Set<String> {
        var files: Set<String> = []
        for name in try names(in: "/proc/self/fd") {
            var target = [UInt8](repeating: 0, count: 256)
            let count = readlink("/proc/self/fd/\(name)", &target, target.count)
            files.insert(String(decoding: target.prefix(max(0, count)), as: UTF8.self))
        }
        return files
    }

    @Test func badFramesAreAnsweredAsContainerdsServerDoes() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        let cases: [(frame: [UInt8], stream: UInt32, code: TTRPCError.Code)] = [
            (Self.frame(try Self.request("Echo"), stream: 2), 2, .invalidArgument),
            (Self.frame([1], stream: 0), 0, .invalidArgument),
            (Self.frame([0xff, 0xff, 0xff], stream: 1), 1, .invalidArgument),
            (Self.frame(try Self.request("Echo"), stream: 1), 1, .invalidArgument),
            (Self.frame([1, 2], stream: 77, type: 3), 77, .invalidArgument),
            (Self.frame([], stream: 3), 3, .unimplemented),
            (
                Self.frame([UInt8](repeating: 0, count: FrameHeader.longest + 1), stream: 5), 5, .resourceExhausted
            ),
            (Self.frame(try Self.request("Fail", ProbeItem(5, "x")), stream: .max), .max, .notFound),
            (Self.frame(try Self.request("Echo"), stream: 9), 9, .invalidArgument),
        ]
        for (frame, stream, code) in cases {
            #expect(wire.send(frame))
            let answer = try #require(try await wire.receive())
            #expect(answer.header.stream == stream && answer.header.type == FrameType.response.rawValue)
            #expect(try WireResponse(serializedBytes: answer.payload).status.code == code.rawValue)
        }
        await server.stop()
    }

    @Test func framesWithoutAMeaningAreIgnored() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        for type in [UInt8(0), 2, 4, 9, 255] { wire.send(Self.frame([1, 2, 3], stream: 1, type: type, flags: 255)) }
        wire.send(Self.frame(try Self.request("Echo", ProbeItem(4)), stream: 1))
        let response = try #require(try await wire.response())
        #expect(response.status.code == 0)
        #expect(try ProbeItem(serializedBytes: response.payload).number == 4)
        await server.stop()
    }

    @Test func dataAfterTheEndOrWithoutAStreamFailsTheCall() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        wire.send(Self.frame(try Self.request("Sleep", ProbeItem(60_000)), stream: 1))
        wire.send(Self.frame([1], stream: 1, type: 3))
        #expect(try await wire.response()?.status.code == TTRPCError.Code.invalidArgument.rawValue)
        // A message that can't be decoded fails the stream that it was for.
        wire.send(Self.frame(try Self.request("Sum"), stream: 3, flags: FrameFlags.remoteOpen.rawValue))
        wire.send(Self.frame([0xff, 0xff], stream: 3, type: 3))
        #expect(try await wire.response()?.status.code == TTRPCError.Code.invalidArgument.rawValue)
        wire.send(Self.frame(try Self.request("Echo", ProbeItem(4)), stream: 5))
        #expect(try await wire.response()?.status.code == 0)
        await server.stop()
    }

    @Test func timesBeyondReasonAreTaken() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        for (index, timeout) in [Int64.max, .min, -1].enumerated() {
            wire.send(Self.frame(try Self.request("Echo", timeout: timeout), stream: UInt32(2 * index + 1)))
            #expect(try await wire.response()?.status.code == 0)
        }
        await server.stop()
    }

    @Test func aClientThatNeverReadsIsHeldUpWithoutGrowingTheServer() async throws {
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        let frame = Self.frame(try Self.request("Echo", ProbeItem(0, blob: 100_000)), stream: 2)
        var timeout = timeval(tv_sec: 0, tv_usec: 200_000)
        try check("setsockopt", "", setsockopt(wire.socket.raw, SOL_SOCKET, SO_SNDTIMEO, &timeout, 16))
        // Each draws an answer; when those are not taken, the server stops reading.
        let small = Self.frame([], stream: 2)
        let many = [UInt8]([[UInt8]](repeating: small, count: 10_000).joined())
        var sent = 0
        while sent < 200, wire.send(many) { sent += 1 }
        #expect(sent < 200)
        wire.send(frame)
        let other = try await Self.connect(server)
        other.send(Self.frame(try Self.request("Echo"), stream: 1))
        #expect(try await other.response()?.status.code == 0)
        await server.stop()
    }

    /// Connections full of damaged conversations, from a seed: the server answers a sound client after each.
    @Test(arguments: [UInt64(1), 2, 3]) func randomBytesNeverEndTheServer(seed: UInt64) async throws {
        var random = SplitMix(state: seed)
        let server = TTRPCServer([.probe(Probe())])
        let wire = try await Self.connect(server)
        wire.send(Self.frame(try Self.request("Echo"), stream: 1))
        #expect(try await wire.response()?.status.code == 0)
        var peers: Set<String> = []
        for _ in 0..<40 {
            let hostile = try await Self.connect(server)
            #expect(try Self.openFiles().contains(hostile.peer))
            peers.insert(hostile.peer)
            for _ in 0..<50 where !hostile.send(try Self.damaged(&random)) { break }
        }
        #expect(try await eventually { server.connectionCount == 1 })
        wire.send(Self.frame(try Self.request("Echo", ProbeItem(9)), stream: 3))
        #expect(try await wire.response().map { try ProbeItem(serializedBytes: $0.payload).number } == 9)
        #expect(try await eventually { (try? Self.openFiles().isDisjoint(with: peers)) == true })
        await server.stop()
    }

    /// A frame that was sound once, or never.
    private static func damaged(_ random: inout SplitMix) throws -> [UInt8] {
        let methods = ["Echo", "Fail", "Count", "Sum", "Chat", "", "\u{0}"]
        let blob = Int.random(in: 0...2000, using: &random)
        let item = ProbeItem(Int64.random(in: 0...20, using: &random), "t", blob: blob)
        let stream = UInt32.random(in: 0...40, using: &random)
        let method = methods.randomElement(using: &random) ?? ""
        var bytes = frame(
            try request(method, item, timeout: .random(in: -1...5, using: &random)), stream: stream,
            type: UInt8.random(in: 0...4, using: &random), flags: UInt8.random(in: 0...8, using: &random))
        switch Int.random(in: 0...5, using: &random) {
        case 0: bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.removeLast(Int.random(in: 1...bytes.count, using: &random))
        case 2:
            let count = Int.random(in: 1...300, using: &random)
            bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        case 3: bytes = frame([1, 2, 3], stream: stream, type: 3, flags: .random(in: 0...255, using: &random))
        case 4: bytes = frame([], stream: stream, length: .random(in: 0...9_000_000, using: &random))
        default: break
        }
        return bytes
    }

    private static func meaningless(_ stream: UInt32) -> [UInt8] {
        frame([], stream: stream, type: 1) + frame([], stream: 0, type: 2) + frame([], stream: stream &+ 2, type: 2)
            + frame([], stream: stream, type: 8)
    }

    @Test func aClientSurvivesAnswersOfEveryKind() async throws {
        let (near, far) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let wire = try Wire(far, peer: near)
        let client = try await TTRPCClient(connected: near)
        let service = ProbeServiceClient(client)
        let long = [UInt8](repeating: 0, count: FrameHeader.longest + 1)
        let answers: [(frame: (UInt32) -> [UInt8], code: TTRPCError.Code)] = [
            ({ Self.frame([0xff, 0xff], stream: $0, type: 2) }, .internal),
            ({ Self.frame([1], stream: $0, type: 3) }, .internal),
            ({ Self.frame(long, stream: $0, type: 2) }, .resourceExhausted),
            ({ Self.frame([0x0a, 0x03, 0x08, 0xe7, 0x07], stream: $0, type: 2) }, .unknown),
            // Nothing for the call itself: a request, another's response, a type of the future.
            (Self.meaningless, .deadlineExceeded),
        ]
        for (answer, code) in answers {
            async let error = failure { () throws(TTRPCError) in
                try await service.echo(ProbeItem(), timeout: .milliseconds(code == .deadlineExceeded ? 300 : 5000))
            }
            let request = try #require(try await wire.receive())
            wire.send(answer(request.header.stream))
            #expect(await error?.code == code)
        }
        // The connection is as good as new.
        async let echo = service.echo(ProbeItem(3))
        let request = try #require(try await wire.receive())
        wire.send(Self.frame([0x12, 0x02, 0x08, 0x06], stream: request.header.stream, type: 2))
        #expect(try await echo.number == 6)
    }
}

/// A generator of random numbers with a seed.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
