import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Virtio

/// A relay whose two ends are in this process.
@Suite(.timeLimit(.minutes(1))) struct FileRelayTests {
    private struct Ends {
        let client: FileRelay
        let server: FileRelay
        let area: SharedDescriptor
        let request: SharedDescriptor

        init() throws {
            area = SharedDescriptor(try OwnedDescriptor.memory("relay", size: Int64(FileRelay.size)))
            request = try SharedDescriptor.event()
            let reply = try SharedDescriptor.event()
            client = try FileRelay(area: area, request: request, reply: reply)
            server = try FileRelay(area: area, request: request, reply: reply)
        }

        /// Forwards bytes, with room for `room` bytes of the reply in pieces of 7 bytes.
        func forward(_ bytes: [UInt8], room: Int) -> [UInt8] {
            let target = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, room), alignment: 8)
            defer { target.deallocate() }
            var pieces: [iovec] = []
            for start in stride(from: 0, to: room, by: 7) {
                pieces.append(
                    iovec(iov_base: target.baseAddress.map { $0 + start }, iov_len: min(7, room - start)))
            }
            var source = bytes
            let written = source.withUnsafeMutableBytes { source in
                let half = source.count / 2
                let parts = [
                    iovec(iov_base: source.baseAddress, iov_len: half),
                    iovec(iov_base: source.baseAddress.map { $0 + half }, iov_len: source.count - half),
                ]
                return parts.withUnsafeBufferPointer { parts in
                    pieces.withUnsafeBufferPointer { client.forward(parts, $0) }
                }
            }
            return Array(target.prefix(Int(written)))
        }
    }

    /// Answers the request's bytes turned around, as many as there is room for.
    private static let turned: FileDevice.Server = { readable, writable in
        let request = readable.flatMap { UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len) }
        let reply = [UInt8](request.reversed())
        return UInt32(
            reply.withUnsafeBytes { bytes in
                bytes.baseAddress.map { Vectors.copyIn($0, count: bytes.count, to: writable) } ?? 0
            })
    }

    @Test func requestsAndRepliesGoThrough() throws {
        let ends = try Ends()
        try ends.server.serve(Self.turned)
        for round in 0..<2000 {
            let bytes = (0..<(1 + round % 100)).map { UInt8(truncatingIfNeeded: $0 + round) }
            #expect(ends.forward(bytes, room: 200) == bytes.reversed())
        }
        // FORGET has no reply.
        #expect(ends.forward([1, 2, 3], room: 0).isEmpty)
        // As large as a WRITE.
        let large = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0) }
        #expect(ends.forward(large, room: 10) == Array(large.reversed().prefix(10)))
    }

    /// A reply that claims more than there is room for is cut.
    @Test func aServersNumbersAreNotTrusted() throws {
        let ends = try Ends()
        try ends.server.serve { _, _ in .max }
        #expect(ends.forward([1], room: 16).count == 16)
    }

    /// A client that claims more than the area has gets what there is.
    @Test func aClientsNumbersAreNotTrusted() throws {
        let ends = try Ends()
        let counts = Recorded()
        try ends.server.serve { readable, writable in
            counts.set(readable.first?.iov_len ?? 0, writable.first?.iov_len ?? 0)
            return 0
        }
        let mapping = try Mapping(file: ends.area.raw, count: FileRelay.size)
        for offset in [4, 8] { (mapping.base + offset).storeBytes(of: UInt32.max, as: UInt32.self) }
        mapping.base.storeBytes(of: 1, as: UInt32.self)
        ends.request.signal()
        let limit = ContinuousClock.now + .seconds(5)
        while counts.value == nil, ContinuousClock.now < limit { usleep(1000) }
        let (readable, writable) = try #require(counts.value)
        #expect(readable < FileRelay.size && readable + writable < FileRelay.size)
    }

    @Test func aShortFileIsRefused() throws {
        let area = SharedDescriptor(try OwnedDescriptor.memory("relay", size: 4096))
        #expect(throws: SystemError.self) { try FileRelay(area: area, request: .event(), reply: .event()) }
    }
}

private final class Recorded: Sendable {
    private let recorded = Mutex<(Int, Int)?>(nil)

    func set(_ readable: Int, _ writable: Int) { recorded.withLock { $0 = (readable, writable) } }

    var value: (Int, Int)? { recorded.withLock { $0 } }
}
