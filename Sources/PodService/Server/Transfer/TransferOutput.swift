import Glibc
import LinuxSystem
import TTRPC
import TaskAPI

/// Sends what a pipe has to a client: `Data` messages, as many bytes as the client has asked for by `WindowUpdate`.
///
/// The way back is the same as that of containerd's core/transfer/streaming.
struct TransferOutput: Sendable {
    private let stream: TransferStream
    /// Bytes in one message, as containerd sends them.
    private static let chunk = 32 << 10

    init(_ stream: TransferStream) { self.stream = stream }

    /// Carries until the pipe ends.
    ///
    /// - Throws: where the client has gone, or takes nothing more.
    func carry(from pipe: SharedDescriptor) async throws {
        var window = 0
        while true {
            let bytes = try await onThread("transfer") { try Self.read(pipe) }
            if bytes.isEmpty { return }
            var rest = bytes[...]
            while !rest.isEmpty {
                while window <= 0 { window += try await nextUpdate() }
                let part = rest.prefix(window)
                try await stream.send(TransferTypeData.with { $0.data = .init(part) })
                window -= part.count
                rest = rest.dropFirst(part.count)
            }
        }
    }

    private static func read(_ pipe: SharedDescriptor) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: chunk)
        let count = try retrying("read", "the archive") { Glibc.read(pipe.raw, &bytes, bytes.count) }
        return Array(bytes.prefix(count))
    }

    /// Waits until the client asks for more. Other messages are passed over.
    private func nextUpdate() async throws -> Int {
        while let message = try await stream.receive() {
            if let update = try message.message(TransferTypeWindowUpdate.self) { return max(0, Int(update.update)) }
        }
        throw TTRPCError(.cancelled, "the client takes nothing more of its stream")
    }
}
