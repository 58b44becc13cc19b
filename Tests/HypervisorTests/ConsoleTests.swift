import Glibc
import Hypervisor
import LinuxSystem
import Synchronization
import Testing

@Suite struct ConsoleTests {
    /// The kernel may interrupt a write in the middle.
    private func print(_ text: String, to pipe: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(pipe, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            #expect(count > 0)
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }

    @Test func keepsTheLastLinesAndIsBounded() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let seen = Mutex(0)
        let console = try Console("test", source: read) { _ in seen.withLock { $0 += 1 } }
        let long = String(repeating: "x", count: 5000)
        for number in 0..<300 {
            print("line \(number) \(long)\n", to: write.raw)
        }
        print("the end\u{1b}[0m\r", to: write.raw)
        shutdownWriteEnd(write)
        console.waitForEnd(timeout: .seconds(10))
        let tail = console.tail(1000)
        #expect(tail.count == Console.maximumLines)
        #expect(tail.last == #"the end\u{1B}[0m"#)
        #expect(tail.allSatisfy { $0.utf8.count <= Console.maximumLineBytes })
        #expect(seen.withLock { $0 } == 301)
        let all = console.lines(from: 0)
        #expect(all.first == 101 && all.lines == tail)
        let last = console.lines(from: 300)
        #expect(last.first == 300 && last.lines == [#"the end\u{1B}[0m"#])
        #expect(console.lines(from: 1000).first == 301)
        #expect(console.lines(from: 1000).lines.isEmpty)
    }

    /// A guest decides what its console says: neither a terminal nor a log acts on it.
    @Test func linesHaveNothingThatATerminalActsOn() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let console = try Console("test", source: read) { _ in }
        let text = "\u{1b}[2J\u{9b}1m\u{202e}txt\r\none\rtwo\r\n"
        #expect(Glibc.write(write.raw, text, text.utf8.count) == text.utf8.count)
        shutdownWriteEnd(write)
        console.waitForEnd(timeout: .seconds(10))
        #expect(console.tail(9) == [#"\u{1B}[2J\u{009B}1m\u{202E}txt"#, #"one\rtwo"#])
    }

    @Test func whatComesTooOftenIsKeptAndNotPassedOn() throws {
        let (read, write) = try SharedDescriptor.pipe()
        let lines = Mutex<[String]>([])
        let console = try Console("test", source: read, pace: Pace(burst: 5, perSecond: 0.001)) { line in
            lines.withLock { $0.append(line) }
        }
        for number in 0..<20 {
            let line = "line \(number)\n"
            #expect(Glibc.write(write.raw, line, line.utf8.count) == line.utf8.count)
        }
        shutdownWriteEnd(write)
        console.waitForEnd(timeout: .seconds(10))
        #expect(lines.withLock { $0 } == (0..<5).map { "line \($0)" } + ["15 lines dropped"])
        #expect(console.tail(100) == (0..<20).map { "line \($0)" })
    }

    /// Closes the write end for good: the owner's later close of the same number must not hit another file.
    private func shutdownWriteEnd(_ descriptor: SharedDescriptor) {
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        dup2(null, descriptor.raw)
        close(null)
    }
}
