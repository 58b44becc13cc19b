import Glibc
import LinuxSystem

/// The bytes of an archive as they come from a descriptor, in large reads.
final class ByteInput {
    private let descriptor: SharedDescriptor
    private let buffer: UnsafeMutableRawBufferPointer
    private var unread = 0..<0
    /// How many bytes were taken.
    private(set) var position: Int64 = 0

    /// Bytes at once.
    static let capacity = 256 << 10

    init(_ descriptor: SharedDescriptor) {
        self.descriptor = descriptor
        buffer = .allocate(byteCount: Self.capacity, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    /// Calls `body` with the bytes that come next, `most` at most, which are taken then.
    ///
    /// - Returns: how many there were; 0 at the end.
    func take(most: Int, _ body: (UnsafeRawBufferPointer) throws -> Void) throws -> Int {
        if unread.isEmpty { try fill() }
        let range = unread.prefix(most)
        try body(UnsafeRawBufferPointer(rebasing: buffer[range]))
        unread = range.upperBound..<unread.upperBound
        position += Int64(range.count)
        return range.count
    }

    private func fill() throws {
        while true {
            let count = read(descriptor.raw, buffer.baseAddress, buffer.count)
            if count >= 0 {
                unread = 0..<count
                return
            }
            switch Glibc.errno {
            case EINTR: continue
            case EAGAIN: awaitDescriptor(descriptor.raw, POLLIN)
            default: throw SystemError.last("read", "the archive")
            }
        }
    }

    /// Takes `count` bytes.
    ///
    /// - Returns: fewer only at the end.
    func bytes(_ count: Int) throws -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(min(count, Self.capacity))
        while result.count < count {
            if try take(most: count - result.count, { result.append(contentsOf: $0) }) == 0 { break }
        }
        return result
    }

    /// Takes everything to the end.
    func drain() throws { while try take(most: Self.capacity, { _ in }) > 0 {} }
}

/// The bytes of an archive as they go to a descriptor, in large writes.
final class ByteOutput {
    private let descriptor: SharedDescriptor
    private let buffer: UnsafeMutableRawBufferPointer
    private var filled = 0

    init(_ descriptor: SharedDescriptor) {
        self.descriptor = descriptor
        buffer = .allocate(byteCount: ByteInput.capacity, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    func write(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = try fill(most: rest.count) { space in
                rest.prefix(space.count).withUnsafeBytes { space.copyMemory(from: $0) }
                return min(space.count, rest.count)
            }
            rest = rest.dropFirst(count)
        }
    }

    /// Has `body` put bytes into the buffer's free space, `most` at most.
    ///
    /// - Parameter body: returns how many it put there.
    /// - Returns: the same.
    func fill(most: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Int) throws -> Int {
        if filled == buffer.count { try flush() }
        let count = try body(UnsafeMutableRawBufferPointer(rebasing: buffer[filled...].prefix(most)))
        filled += count
        return count
    }

    /// Sends what is in the buffer.
    func flush() throws {
        var sent = 0
        while sent < filled {
            let count = Glibc.write(descriptor.raw, buffer.baseAddress.map { $0 + sent }, filled - sent)
            if count >= 0 {
                sent += count
                continue
            }
            switch Glibc.errno {
            case EINTR: continue
            case EAGAIN: awaitDescriptor(descriptor.raw, POLLOUT)
            default: throw SystemError.last("write", "the archive")
            }
        }
        filled = 0
    }
}

/// Blocks until a descriptor that somebody else has made non-blocking is ready.
private func awaitDescriptor(_ descriptor: Int32, _ event: Int32) {
    var item = pollfd(fd: descriptor, events: Int16(event), revents: 0)
    poll(&item, 1, -1)
}
