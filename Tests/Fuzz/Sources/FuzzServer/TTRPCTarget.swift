import FuzzSupport
import NIOCore
import NIOEmbedded
import OCISpec
import SwiftProtobuf
import TaskAPI

@testable import PodService
@testable import Sandbox
@testable import TTRPC

/// Frames of ttrpc at both ends of a connection, and the requests of the Task service in them, decoded and validated.
final class TTRPCTarget: FuzzTarget {
    private static let frames = 32
    private let services: [String: TTRPCServiceDescription]
    private let methods: [String]

    init() throws {
        InlineTasks.begin()
        let task = TaskRequests.service
        services = ["containerd.task.v2.Task": task]
        methods = task.methods.keys.sorted()
    }

    func run(_ input: inout Input) throws {
        let channel = EmbeddedChannel()
        if input.byte() > 200 { return try client(&input, channel) }
        let connection = ServerConnection(channel, services) { _ in }
        try channel.pipeline.syncOperations.addHandler(connection)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/fuzz")).wait()
        var stream: UInt32 = 1
        for _ in 0..<Self.frames where !input.isEmpty {
            let choice = input.byte()
            if choice > 250 {
                channel.embeddedEventLoop.advanceTime(by: .milliseconds(Int64(input.word())))
            } else {
                let id = choice > 240 ? input.number() : choice < 20 ? stream &- 2 : stream
                stream &+= 2
                send(frame(choice, id, payload(choice, &input), &input), &input, to: channel)
            }
            InlineTasks.run()
            channel.embeddedEventLoop.run()
            try responses(channel)
        }
        connection.close(TTRPCError(.unavailable, "the end"))
        InlineTasks.run()
        channel.embeddedEventLoop.run()
        _ = try? channel.finish(acceptAlreadyClosed: true)
        InlineTasks.run()
        require(connection.streams.isEmpty, "\(connection.streams.count) streams are left")
    }

    private func payload(_ choice: UInt8, _ input: inout Input) -> [UInt8] {
        if choice < 8 { return input.take(Int(input.byte())) }
        let request = WireRequest.with {
            $0.service = choice == 9 ? "another" : "containerd.task.v2.Task"
            $0.method = choice == 10 ? "Nothing" : input.pick(methods)
            $0.timeoutNano = choice == 11 ? Int64(bitPattern: input.number64()) : 0
            $0.payload = .init(TaskRequests.bytes(of: $0.method, &input))
        }
        return (try? request.serializedBytes()) ?? []
    }

    private func frame(_ choice: UInt8, _ stream: UInt32, _ payload: [UInt8], _ input: inout Input) -> [UInt8] {
        let length = choice == 12 ? input.number() : UInt32(payload.count)
        let type = choice == 13 ? input.byte() : choice == 14 ? 3 : 1
        let flags = choice < 32 ? input.byte() : 0
        return octets(length) + octets(stream) + [type, flags] + payload
    }

    private func octets(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }

    /// In two pieces now and then.
    private func send(_ bytes: [UInt8], _ input: inout Input, to channel: EmbeddedChannel) {
        let cut = bytes.isEmpty ? 0 : Int(input.byte()) % bytes.count
        for part in [bytes[..<cut], bytes[cut...]] where !part.isEmpty {
            _ = try? channel.writeInbound(ByteBuffer(bytes: part))
        }
    }

    /// What was written is whole frames, each a response that can be read.
    private func responses(_ channel: EmbeddedChannel) throws {
        var parser = FrameParser()
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) {
            parser.append(buffer)
            while let event = parser.next() {
                guard case .frame(let frame) = event else { fatalError("a response that is too long") }
                require(frame.header.type == 2, "a frame of type \(frame.header.type)")
                require((try? WireResponse(serializedBytes: frame.payload)) != nil, "a response that can't be read")
            }
        }
    }

    /// A client with two calls under way that a server answers with anything.
    private func client(_ input: inout Input, _ channel: EmbeddedChannel) throws {
        let connection = ClientConnection(channel, peer: .guest) { _ in }
        try channel.pipeline.syncOperations.addHandler(connection)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/fuzz")).wait()
        for streams in [false, true] {
            let stream = StreamState(streamsIn: streams, streamsOut: false)
            connection.open(stream, [], flags: [], timeout: .seconds(1))
        }
        while !input.isEmpty {
            let choice = input.byte()
            var payload = input.take(Int(input.byte()))
            if choice > 100 {
                let response = WireResponse.with {
                    $0.status.code = Int32(choice % 20)
                    $0.payload = .init(payload)
                }
                payload = (try? response.serializedBytes()) ?? []
            }
            let header =
                octets(choice == 0 ? input.number() : UInt32(payload.count)) + octets(UInt32(choice % 5))
                + [input.byte() % 5, input.byte() % 8]
            send(header + payload, &input, to: channel)
            channel.embeddedEventLoop.run()
        }
        channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        connection.close(TTRPCError(.unavailable, "the end"))
        channel.embeddedEventLoop.run()
        _ = try? channel.finish(acceptAlreadyClosed: true)
        require(connection.streams.isEmpty, "\(connection.streams.count) streams are left")
    }
}
