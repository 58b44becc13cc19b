import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The console with readers that are slow or gone, and with drivers that break the rules.
@Suite struct HostileConsoleTests {
    private func line(_ number: Int) -> [UInt8] { Array("line \(number) of what the guest's kernel has to say\n".utf8) }

    /// A reader that never reads blocks no one: the device takes every buffer at once, no memory grows, and what it finds when
    /// it comes back is the beginning, how much is lost, and the end.
    @Test func aReaderThatSleeps() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write)
        try scene.start()
        var written: [UInt8] = []
        var resident = 0
        for number in 0..<60_000 {
            if number == 20_000 { resident = residentBytes() }
            written += line(number)
            guard try scene.write(line(number)) else {
                Issue.record("the guest waits for line \(number)")
                return
            }
        }
        let growth = residentBytes() - resident - written.count
        #expect(growth < 8 << 20, "\(growth)")
        // A loop that has nothing to do sleeps.
        #expect(try scene.isIdle())
        var item = pollfd(fd: scene.transmit.kick.raw, events: Int16(POLLIN), revents: 0)
        #expect(poll(&item, 1, 0) == 0)
        var seen = try readAll(read)
        #expect(!seen.isEmpty)
        for _ in 0..<20 {
            try scene.turn()
            seen += try readAll(read)
        }
        let text = String(decoding: seen, as: UTF8.self)
        let parts = text.split(separator: "\n[")
        #expect(parts.count == 2)
        let head = Array((parts.first ?? "").utf8)
        let rest = parts.last?.split(separator: " bytes of console output lost: slow reader]\n") ?? []
        let tail = Array((rest.last ?? "").utf8)
        let lost = rest.first.flatMap { Int($0) } ?? -1
        #expect(written.starts(with: head) && head.count >= 4096)
        #expect(Array(written.suffix(tail.count)) == tail && tail.count == ConsoleOutput.capacity)
        #expect(head.count + lost + tail.count == written.count)
        #expect(tail.suffix(line(59_999).count) == line(59_999)[...])
        // It is awake now.
        #expect(try scene.write("and on\n"))
        #expect(try readAll(read) == Array("and on\n".utf8))
    }

    /// A reader that is only now and then too slow loses bytes, but not their number, and none twice.
    @Test func aReaderThatIsNowAndThenSlow() throws {
        let (read, write) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let scene = try ConsoleScene(output: write)
        try scene.start()
        var random = Seeded(3)
        var (written, seen): ([UInt8], [UInt8]) = ([], [])
        for number in 0..<4000 {
            let count = Int.random(in: 1...2000, using: &random)
            let bytes = (0..<count).map { UInt8(ascii: "a") + UInt8((number + $0) % 26) }
            written += bytes
            #expect(try scene.write(bytes))
            if Int.random(in: 0..<400, using: &random) == 0 {
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    seen += try readAll(read)
                    try scene.turn()
                }
            }
        }
        for _ in 0..<20 {
            seen += try readAll(read)
            try scene.turn()
        }
        // Letters are the guest's, the rest is the console's.
        let letters = seen.filter { $0 >= UInt8(ascii: "a") && $0 <= UInt8(ascii: "z") }.count
        let notes = String(decoding: seen, as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix("[") }
        let lost = notes.compactMap { Int($0.dropFirst().prefix { $0.isNumber }) }.reduce(0, +)
        let noticeLetters = notes.map { note in note.filter { $0.isLowercase }.count }.reduce(0, +)
        #expect(notes.count > 1 && lost > 0)
        #expect(letters - noticeLetters + lost == written.count)
    }

    /// One buffer larger than all that may wait: its end is what is kept.
    @Test func aBufferThatIsTooLarge() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write)
        try scene.start()
        let bytes = FakeDisk.pattern(3 << 20)
        #expect(try scene.write(bytes))
        try scene.turn()
        let seen = try readAll(read)
        let note = Array("\n[\(bytes.count - ConsoleOutput.capacity) bytes of console output lost: slow reader]\n".utf8)
        #expect(seen.starts(with: note))
        var rest = Array(seen.dropFirst(note.count))
        for _ in 0..<5 {
            try scene.turn()
            rest += try readAll(read)
        }
        #expect(rest == Array(bytes.suffix(ConsoleOutput.capacity)))
        // 4 GB of the same memory over and over: as little work.
        let table = ConsoleScene.data + 0x300000
        for index: UInt16 in 0..<1000 {
            scene.transmit.ring.setDescriptor(
                index, FakeMemory.base, 4_000_000, index < 999 ? 1 : 0, next: index + 1, table: table)
        }
        scene.transmit.ring.setDescriptor(50, table, 16 * 1000, FakeRing.indirect)
        scene.transmit.ring.publish(50)
        scene.transmit.signal()
        let start = ContinuousClock.now
        try scene.turn()
        #expect(ContinuousClock.now - start < .seconds(1))
        #expect(scene.transmit.ring.takeUsed().map(\.count) == [0])
    }

    @Test func aReaderThatIsGone() throws {
        for early in [true, false] {
            let ends = try PipeEnds()
            let scene = try ConsoleScene(output: ends.take(\.writer))
            try scene.start()
            if early { ends.reader = nil }
            for number in 0..<4000 {
                #expect(try scene.write(line(number)))
                // With the pipe full, and the console waiting for room.
                if number == 2500 { ends.reader = nil }
            }
            #expect(try scene.isIdle())
            #expect(try scene.write("into the void"))
        }
    }

    /// At the machine's end its last output is written, as far as the reader takes it within the time.
    @Test func outputTail() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write)
        try scene.start()
        for number in 0..<3000 { #expect(try scene.write(line(number))) }
        let start = ContinuousClock.now
        scene.backend.finish(milliseconds: 50)
        #expect(ContinuousClock.now - start >= .milliseconds(50) && ContinuousClock.now - start < .seconds(5))
        let done = try Promise<[UInt8]>()
        try startThread("reader") {
            var all: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65536)
            let end = line(2999)
            while all.suffix(end.count) != end[...] {
                let count = Glibc.read(read.raw, &buffer, buffer.count)
                if count <= 0 { break }
                all += buffer.prefix(count)
            }
            done.settle(all)
        }
        scene.backend.finish(milliseconds: 5000)
        #expect(done.wait(timeout: .seconds(5))?.suffix(20) == line(2999).suffix(20))
    }

    @Test func brokenRings() throws {
        let (from, into) = try SharedDescriptor.pipe()
        let (read, write) = try SharedDescriptor.pipe()
        let scene = try ConsoleScene(output: write, input: from)
        try scene.start()
        scene.memory.write(Array("words".utf8), at: ConsoleScene.data)
        scene.transmit.ring.add([(ConsoleScene.data, 5, false)])
        scene.transmit.ring.publish(64)
        scene.transmit.signal()
        #expect(Glibc.write(into.raw, "input", 5) == 5)
        scene.receive.ring.add([(ConsoleScene.data, 5, true), (ConsoleScene.data, 5, false)])
        scene.receive.signal()
        try scene.turn(4)
        // What came before is out.
        #expect(try readAll(read) == Array("words".utf8))
        #expect(
            scene.broken.sorted() == [
                "console queue 0: readable descriptor after a writable one",
                "console queue 1: available entry names descriptor 64 beyond the table",
            ])
        #expect(consume(scene.receive.error, milliseconds: 0) && consume(scene.transmit.error, milliseconds: 0))
        #expect(try scene.isIdle())
        #expect(scene.broken.count == 2)
        #expect(scene.backend.stop(queue: 0) == 0 && scene.backend.stop(queue: 1) == 1)
    }

    @Test func fuzz() throws {
        let (theirs, ours) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let scene = try ConsoleScene(output: ours, input: ours)
        try scene.start()
        var random = Seeded(53)
        let end = ContinuousClock.now + .seconds(1)
        var (answers, breaks, rounds, resident) = (0, 0, 0, 0)
        while ContinuousClock.now < end || rounds < 3000 {
            rounds += 1
            if rounds == 1000 { resident = residentBytes() }
            for queue in [scene.receive, scene.transmit] {
                let odd = Int.random(in: 0..<60, using: &random)
                let address =
                    odd == 0 ? random.next() : ConsoleScene.data + UInt64.random(in: 0..<1 << 20, using: &random)
                let count = UInt32(truncatingIfNeeded: random.next() >> UInt64.random(in: 46...63, using: &random))
                queue.ring.add([
                    (address, count, (odd == 1) != (queue.index == 0)), (ConsoleScene.data, 9, queue.index == 0),
                ])
                if odd == 2 { queue.ring.setAvailable(UInt16(truncatingIfNeeded: random.next())) }
                queue.signal()
            }
            if rounds % 3 == 0 { _ = try readAll(theirs) }
            if rounds % 4 == 0 { _ = send(theirs.raw, "typed", 5, Int32(MSG_DONTWAIT)) }
            try scene.turn()
            for queue in [scene.receive, scene.transmit] {
                answers += queue.ring.takeUsed().count
                guard breaks < scene.broken.count else { continue }
                _ = scene.backend.stop(queue: queue.index)
                var setup = queue.setup
                setup.position = queue.ring.available
                try scene.backend.start(queue: queue.index, setup)
            }
            breaks = scene.broken.count
        }
        #expect(answers > 1000 && breaks > 20, "\(answers) answers, \(breaks) broken rings")
        #expect(residentBytes() < resident + 8 << 20)
    }
}
