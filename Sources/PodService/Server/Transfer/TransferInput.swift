import FoundationEssentials
import Glibc
import LinuxSystem
import Synchronization
import TTRPC
import TaskAPI

/// Takes what a client sends into a pipe: it is asked for by `WindowUpdate`, no more than there is room for, and comes in `Data` messages.
struct TransferInput: Sendable {
    private let stream: TransferStream
    private let window = Window()

    /// Bytes that the client may send before they were taken.
    private static let size = 256 << 10

    /// What the client may still send.
    private final class Window: Sendable {
        private let left = Mutex(0)

        func grow(by count: Int) { left.withLock { $0 += count } }

        /// - Returns: false where the client may not send so much.
        func take(_ count: Int) -> Bool {
            left.withLock { left in
                left -= count
                return left >= 0
            }
        }
    }

    init(_ stream: TransferStream) { self.stream = stream }

    /// Carries until the client has sent all, or nobody reads the pipe any more.
    ///
    /// - Throws: where the client has gone, or sends more than it was asked for.
    func carry(to pipe: SharedDescriptor) async throws {
        let (chunks, continuation) = AsyncStream.makeStream(of: Data.self)
        try await withThrowingTaskGroup { group in
            group.addTask { try await receive(continuation) }
            group.addTask { try await write(chunks, to: pipe) }
            // With the writing it is over.
            while try await group.next() == false {}
            group.cancelAll()
        }
    }

    /// Takes messages as they come, so that the connection is never held up.
    ///
    /// - Returns: false: there is something to be written yet.
    private func receive(_ chunks: AsyncStream<Data>.Continuation) async throws -> Bool {
        defer { chunks.finish() }
        while let message = try await stream.receive() {
            guard let data = try message.message(TransferTypeData.self)?.data else { continue }
            guard window.take(data.count) else {
                throw TTRPCError(.invalidArgument, "the stream: more data than was asked for")
            }
            if !data.isEmpty { chunks.yield(data) }
        }
        return false
    }

    private func write(_ chunks: AsyncStream<Data>, to pipe: SharedDescriptor) async throws -> Bool {
        try await grant(Self.size)
        var taken = 0
        for await chunk in chunks {
            // Whoever reads the pipe tells why not any more.
            guard try await onThread("transfer", { try Self.write(chunk, to: pipe) }) else { return true }
            taken += chunk.count
            if taken >= Self.size / 4 {
                try await grant(taken)
                taken = 0
            }
        }
        return true
    }

    private func grant(_ count: Int) async throws {
        window.grow(by: count)
        try await stream.send(TransferTypeWindowUpdate.with { $0.update = Int32(count) })
    }

    /// - Returns: false when nobody reads the pipe.
    private static func write(_ data: Data, to pipe: SharedDescriptor) throws -> Bool {
        var rest = data[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(pipe.raw, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EPIPE {
                return false
            } else if errno != EINTR {
                throw SystemError.last("write", "the archive")
            }
        }
        return true
    }
}
