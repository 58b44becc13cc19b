import Glibc
public import LinuxSystem
import Synchronization

/// Carries the FUSE requests of a machine whose memory another process does not map: one request at a time, through a small memory
/// file that both processes map. The client copies a request there, the server serves it in place, and the client copies the reply.
///
/// Each side trusts no number of the other: what is read there is read once, and cut to what there is room for.
public final class FileRelay: @unchecked Sendable {
    /// Bytes for a request, and for a reply: those of READ and WRITE (1 MiB) with their headers.
    private static let room = 1 << 20 | 1 << 16
    private static let header = 4096
    /// Bytes of the memory file.
    public static let size = header + 2 * room

    /// The header's fields, by offset. Each side's are on a cache line of its own.
    private enum Field {
        /// Of the client: how many requests it has made, how many bytes the last one has, and has room for.
        static let requests = 0, readable = 4, writable = 8
        /// Of the server: how many it has answered, and how many bytes the last reply has.
        static let replies = 64, written = 68
        /// Whether a side sleeps, and wants its eventfd signalled.
        static let clientSleeps = 128, serverSleeps = 192
    }

    private let mapping: Mapping
    /// Signalled when there is a request, and when there is a reply.
    private let request: SharedDescriptor
    private let reply: SharedDescriptor

    /// - Parameters:
    ///   - area: a memory file of `size` bytes.
    ///   - request: an eventfd, which the client signals.
    ///   - reply: an eventfd, which the server signals.
    /// - Throws: `SystemError` where the file can't be mapped, or is too small.
    public init(area: SharedDescriptor, request: SharedDescriptor, reply: SharedDescriptor) throws(SystemError) {
        var facts = stat()
        try check("fstat", "relay", fstat(area.raw, &facts))
        guard facts.st_size >= Self.size else { throw SystemError("map", "relay", errno: .invalidArgument) }
        mapping = try Mapping(file: area.raw, count: Self.size)
        self.request = request
        self.reply = reply
    }

    private func field(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (mapping.base + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private func load(_ offset: Int) -> UInt32 { field(offset).pointee.load(ordering: .acquiring) }

    private func store(_ value: UInt32, _ offset: Int) { field(offset).pointee.store(value, ordering: .releasing) }

    private var requestBytes: UnsafeMutableRawPointer { mapping.base + Self.header }
    private var replyBytes: UnsafeMutableRawPointer { mapping.base + Self.header + Self.room }

    /// Waits until a number of the other side is another than `old`.
    private func wait(
        _ policy: inout PollPolicy, _ number: Int, not old: UInt32, sleeps: Int, _ event: SharedDescriptor
    ) {
        let began = monotonicNanoseconds()
        var last = began
        var wasPreempted = false
        while policy.isPolling, last &- began < PollPolicy.longest, load(number) == old {
            let now = monotonicNanoseconds()
            if now &- last > PollPolicy.preemption { wasPreempted = true }
            last = now
        }
        while load(number) == old {
            store(1, sleeps)
            // The other side reads this after it has stored its number.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
            if load(number) == old {
                var item = pollfd(fd: event.raw, events: Int16(POLLIN), revents: 0)
                poll(&item, 1, -1)
                _ = consumeKick(event.raw)
            }
            store(0, sleeps)
        }
        policy.record(monotonicNanoseconds() &- began, preempted: wasPreempted)
    }

    private func publish(_ value: UInt32, _ number: Int, wake sleeps: Int, _ event: SharedDescriptor) {
        store(value, number)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if load(sleeps) != 0 { event.signal() }
    }

    // MARK: The machine's side

    /// Has the other process serve a request, and waits for that. To be called by one thread.
    ///
    /// - Returns: how many bytes of the reply are in `writable`.
    public func forward(_ readable: UnsafeBufferPointer<iovec>, _ writable: UnsafeBufferPointer<iovec>) -> UInt32 {
        let room = writable.reduce(0) { $0 + $1.iov_len }
        let count = Vectors.copyOut(readable, to: requestBytes, count: Self.room)
        store(UInt32(count), Field.readable)
        store(UInt32(min(room, Self.room)), Field.writable)
        let replies = load(Field.replies)
        publish(load(Field.requests) &+ 1, Field.requests, wake: Field.serverSleeps, request)
        wait(&clientPolicy, Field.replies, not: replies, sleeps: Field.clientSleeps, reply)
        let written = min(Int(load(Field.written)), room, Self.room)
        return UInt32(Vectors.copyIn(replyBytes, count: written, to: writable))
    }

    /// Belongs to the thread that calls `forward`.
    private var clientPolicy = PollPolicy()

    // MARK: The file server's side

    /// Serves requests on a thread of its own, for as long as the process lives.
    public func serve(_ answer: @escaping FileDevice.Server) throws(SystemError) {
        try startThread("file system relay", stackSize: 1 << 20) { [self] in
            var policy = PollPolicy()
            var seen: UInt32 = 0
            while true {
                wait(&policy, Field.requests, not: seen, sleeps: Field.serverSleeps, request)
                seen = load(Field.requests)
                var readable = iovec(
                    iov_base: requestBytes, iov_len: min(Int(load(Field.readable)), Self.room))
                var writable = iovec(iov_base: replyBytes, iov_len: min(Int(load(Field.writable)), Self.room))
                let written = withUnsafePointer(to: &readable) { readable in
                    withUnsafePointer(to: &writable) { writable in
                        answer(
                            UnsafeBufferPointer(start: readable, count: 1),
                            UnsafeBufferPointer(start: writable, count: writable.pointee.iov_len > 0 ? 1 : 0))
                    }
                }
                store(written, Field.written)
                publish(load(Field.replies) &+ 1, Field.replies, wake: Field.clientSleeps, reply)
            }
        }
    }
}
