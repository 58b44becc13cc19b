import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// A console on an event loop that the test turns by hand.
final class ConsoleScene {
    static let data = FakeMemory.base + 0x20000

    let memory: FakeMemory
    let loop: EventLoop
    let receive: FakeQueue
    let transmit: FakeQueue
    let backend: ConsoleBackend
    private(set) var broken: [String] = []

    init(output: SharedDescriptor, input: SharedDescriptor? = nil) throws {
        signal(SIGPIPE, SIG_IGN)
        memory = try FakeMemory()
        loop = try EventLoop()
        receive = try FakeQueue(0, memory)
        transmit = try FakeQueue(1, memory)
        var report: (String) -> Void = { _ in }
        backend = try ConsoleBackend(output: output, input: input, loop: loop) { report($0) }
        report = { [unowned self] in broken.append($0) }
    }

    func start() throws {
        try backend.start(queue: 0, receive.setup)
        try backend.start(queue: 1, transmit.setup)
    }

    func turn(_ rounds: Int = 1) throws {
        for _ in 0..<rounds { try loop.runOnce(timeoutMilliseconds: 0) }
    }

    /// Nothing wakes the loop.
    func isIdle() throws -> Bool {
        try turn()
        // The kernel may interrupt the wait of a thread that has used a ring (io_uring) before; what wakes the loop does so each time.
        for _ in 0..<5 {
            let start = ContinuousClock.now
            try loop.runOnce(timeoutMilliseconds: 20)
            if ContinuousClock.now - start >= .milliseconds(15) { return true }
        }
        return false
    }

    /// The guest writes as Linux does: a buffer, a kick, and it spins until that is used. False: it spins for ever.
    func write(_ bytes: [UInt8]) throws -> Bool {
        memory.write(bytes, at: Self.data)
        transmit.ring.add([(Self.data, UInt32(bytes.count), false)])
        transmit.signal()
        try turn()
        return transmit.ring.takeUsed().map(\.count) == [0]
    }

    func write(_ text: String) throws -> Bool { try write(Array(text.utf8)) }
}

/// What can be read without waiting.
func readAll(_ descriptor: SharedDescriptor) throws -> [UInt8] {
    try descriptor.setNonBlocking(true)
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(descriptor.raw, &buffer, buffer.count)
        if count <= 0 { return all }
        all += buffer.prefix(count)
    }
}

/// A pipe whose ends are closed when the test says so.
final class PipeEnds {
    var reader: SharedDescriptor?
    var writer: SharedDescriptor?

    init() throws { (reader, writer) = try SharedDescriptor.pipe() }

    /// Gives an end away; once.
    func take(_ end: ReferenceWritableKeyPath<PipeEnds, SharedDescriptor?>) throws -> SharedDescriptor {
        defer { self[keyPath: end] = nil }
        return try #require(self[keyPath: end])
    }
}
