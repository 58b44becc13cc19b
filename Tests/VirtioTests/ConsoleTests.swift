import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The console with a driver and a reader that keep up.
@Suite struct ConsoleTests {
    @Test func output() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write)
        #expect(scene.backend.queueCount == 2 && scene.backend.features == 0)
        #expect(scene.backend.configuration == [UInt8](repeating: 0, count: 12))
        try scene.start()
        #expect(try scene.write("hello "))
        #expect(try scene.write("world\n"))
        #expect(try readAll(read) == Array("hello world\n".utf8))
        scene.memory.write(Array("abcdef".utf8), at: ConsoleScene.data)
        scene.transmit.ring.add([
            (ConsoleScene.data, 2, false), (ConsoleScene.data + 4, 2, false), (ConsoleScene.data, 0, false),
        ])
        // What the driver should not do: buffers to write to, and nothing at all.
        scene.transmit.ring.add([(ConsoleScene.data, 1, false), (ConsoleScene.data + 100, 50, true)])
        scene.transmit.ring.add([(ConsoleScene.data, 0, false)])
        scene.transmit.signal()
        try scene.turn()
        #expect(scene.transmit.ring.takeUsed().map(\.count) == [0, 0, 0])
        #expect(try readAll(read) == Array("abefa".utf8))
        #expect(scene.backend.stop(queue: 1) == 5)
        // In the ring at the start: seen without a kick.
        scene.transmit.ring.add([(ConsoleScene.data, 3, false)])
        var setup = scene.transmit.setup
        setup.position = 5
        try scene.backend.start(queue: 1, setup)
        #expect(try readAll(read) == Array("abc".utf8))
        #expect(scene.broken.isEmpty)
    }

    @Test func input() throws {
        let (theirs, ours) = try SharedDescriptor.socketPair(SOCK_STREAM)
        // One socket for both ways.
        let scene = try ConsoleScene(output: ours, input: ours)
        try scene.start()
        #expect(try scene.write("prompt"))
        #expect(try readAll(theirs) == Array("prompt".utf8))
        // Without a buffer of the guest, input stays in the descriptor, and the loop sleeps.
        #expect(write(theirs.raw, "hello", 5) == 5)
        #expect(try scene.isIdle())
        #expect(scene.receive.ring.takeUsed().isEmpty)
        scene.receive.ring.add([(ConsoleScene.data, 3, true), (ConsoleScene.data + 64, 64, true)])
        scene.receive.signal()
        try scene.turn()
        #expect(scene.receive.ring.takeUsed().map(\.count) == [5])
        #expect(scene.memory.read(3, at: ConsoleScene.data) == Array("hel".utf8))
        #expect(scene.memory.read(2, at: ConsoleScene.data + 64) == Array("lo".utf8))
        #expect(consume(scene.receive.call, milliseconds: 0))
        // Buffers that wait for input; one of them can't take any.
        scene.receive.ring.setUsedEvent(scene.receive.ring.used)
        scene.receive.ring.add([(ConsoleScene.data, 64, false)])
        scene.receive.ring.add([(ConsoleScene.data, 64, true)])
        scene.receive.ring.add([(ConsoleScene.data + 64, 64, true)])
        scene.receive.signal()
        try scene.turn(2)
        #expect(scene.receive.ring.takeUsed().map(\.count) == [0])
        #expect(try scene.isIdle())
        for text in ["one", "three"] {
            #expect(write(theirs.raw, text, text.utf8.count) == text.utf8.count)
            try scene.turn()
            #expect(scene.receive.ring.takeUsed().map(\.count) == [UInt32(text.utf8.count)])
        }
        // The buffers are used up, and there is more input.
        #expect(write(theirs.raw, "more", 4) == 4)
        #expect(try scene.isIdle())
        scene.receive.ring.add([(ConsoleScene.data, 64, true)])
        scene.receive.signal()
        try scene.turn()
        #expect(scene.receive.ring.takeUsed().map(\.count) == [4])
        // Stopped with input waiting, and started again.
        scene.receive.ring.add([(ConsoleScene.data, 64, true)])
        scene.receive.signal()
        try scene.turn()
        var setup = scene.receive.setup
        setup.position = scene.backend.stop(queue: 0)
        #expect(setup.position == 5)
        #expect(write(theirs.raw, "late", 4) == 4)
        #expect(try scene.isIdle())
        #expect(scene.receive.ring.takeUsed().isEmpty)
        try scene.backend.start(queue: 0, setup)
        #expect(scene.receive.ring.takeUsed().map(\.count) == [4])
        #expect(scene.broken.isEmpty)
    }

    /// The end of the input is the end of nothing else.
    @Test func inputThatEnds() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let ends = try PipeEnds()
        let scene = try ConsoleScene(output: write, input: ends.take(\.reader))
        try scene.start()
        for _ in 0..<3 { scene.receive.ring.add([(ConsoleScene.data + 0x1000, 64, true)]) }
        scene.receive.signal()
        try scene.turn()
        #expect(Glibc.write(ends.writer?.raw ?? -1, "x", 1) == 1)
        try scene.turn()
        ends.writer = nil
        #expect(try scene.isIdle())
        #expect(scene.receive.ring.takeUsed().map(\.count) == [1])
        #expect(try scene.write("still here"))
        #expect(try readAll(read) == Array("still here".utf8))
    }

    @Test func withoutInput() throws {
        let (_, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write)
        try scene.start()
        scene.receive.ring.add([(ConsoleScene.data, 64, true)])
        scene.receive.signal()
        try scene.turn(2)
        #expect(scene.receive.ring.takeUsed().isEmpty && scene.broken.isEmpty)
        #expect(scene.backend.stop(queue: 0) == 0)
    }
}
