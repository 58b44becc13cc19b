import AgentAPI
import CLinux
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import TTRPC
import Testing

/// Streams that are detached and attached again, as the host does it around a pause of the guest.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct DetachTests {
    /// The host's ends of a process's streams, with one connection after another.
    private struct Host {
        let agent: AgentUnderTest
        let container: String
        var exec = ""
        var stdin: (number: UInt64, socket: SharedDescriptor)?
        var stdout: (number: UInt64, socket: SharedDescriptor)?
        var stderr: (number: UInt64, socket: SharedDescriptor)?

        var numbers: AgentStreams {
            .with {
                ($0.stdin, $0.stdout, $0.stderr) = (stdin?.number ?? 0, stdout?.number ?? 0, stderr?.number ?? 0)
            }
        }

        /// Connects those streams anew that there are.
        mutating func connect() throws {
            if stdin != nil { stdin = try agent.stream() }
            if stdout != nil { stdout = try agent.stream() }
            if stderr != nil { stderr = try agent.stream() }
        }

        mutating func attach() async throws {
            try connect()
            try await agent.attach([(container, exec, numbers)])
        }

        /// Sends `bytes`, then nothing more until the agent detaches the stream, then the end.
        ///
        /// - Parameter isLast: the input ends behind them.
        func send(_ bytes: [UInt8], isLast: Bool = false) throws {
            guard let socket = stdin?.socket else { return }
            try startThread("input") {
                #expect(AgentUnderTest.writeAll(bytes, to: socket))
                var item = pollfd(fd: socket.raw, events: 0x2000, revents: 0)  // POLLRDHUP
                if !isLast { poll(&item, 1, -1) }
                shutdown(socket.raw, Int32(SHUT_WR))
            }
        }

        /// Everything until the agent ends the connection.
        func readOutput() async -> [UInt8] {
            guard let stdout else { return [] }
            return await AgentUnderTest.readAll(stdout.socket)
        }
    }

    private func host(_ agent: AgentUnderTest, _ container: String, input: Bool = false, errors: Bool = false) throws
        -> Host
    {
        var host = Host(agent: agent, container: container)
        host.stdout = try agent.stream()
        if input { host.stdin = try agent.stream() }
        if errors { host.stderr = try agent.stream() }
        return host
    }

    private func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
    }

    /// Reads until there are `count` bytes at least.
    private func read(_ count: Int, from socket: SharedDescriptor) throws -> [UInt8] {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while all.count < count {
            let length = Glibc.read(socket.raw, &chunk, chunk.count)
            try #require(length > 0)
            all += chunk[..<length]
        }
        return all
    }

    /// Whether it is what `seq 1 …` prints, up to any byte.
    private func isSequence(_ output: [UInt8]) -> Bool {
        var expected: [UInt8] = []
        var number = 1
        while expected.count < output.count {
            expected += Array("\(number)\n".utf8)
            number += 1
        }
        return Array(expected.prefix(output.count)) == output
    }

    @Test func noByteOfAnOutputIsLostOrDoubled() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "a")
            try await agent.create("a", agent.spec(["seq", "1", "1000000000"], id: "a"), host.numbers)
            try await agent.start("a")
            var output: [UInt8] = []
            for _ in 0..<10 {
                output += try read(200_000, from: try #require(host.stdout).socket)
                async let rest = host.readOutput()
                try await agent.detach()
                output += await rest
                try await host.attach()
            }
            output += try read(200_000, from: try #require(host.stdout).socket)
            async let rest = host.readOutput()
            try await agent.kill("a")
            output += await rest
            #expect(try await agent.wait("a") == 137)
            #expect(output.count > 2_200_000 && isSequence(output))
            try await agent.remove("a")
        }
    }

    @Test func noByteOfAnInputIsLostOrDoubled() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "i", input: true)
            let input = bytes(1 << 20)
            try await agent.create("i", agent.spec(["cat"], id: "i"), host.numbers)
            try await agent.start("i")
            var output: [UInt8] = []
            for part in 0..<8 {
                try host.send(Array(input[part << 17..<(part + 1) << 17]), isLast: part == 7)
                if part == 7 { break }
                async let rest = host.readOutput()
                try await agent.detach()
                output += await rest
                try await host.attach()
            }
            output += await host.readOutput()
            #expect(try await agent.wait("i") == 0)
            #expect(output == input)
            try await agent.remove("i")
        }
    }

    @Test func whatAProcessHasNotReadYetIsKept() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "k", input: true)
            let input = bytes(700_000)
            let script = "until [ -e /tmp/go ]; do sleep 0.05; done; tee /tmp/copy | wc -c"
            try await agent.create("k", agent.spec(["sh", "-c", script], id: "k"), host.numbers)
            try await agent.start("k")
            // More than the pipe and the connection hold: some of it is sent while the stream is being detached.
            try host.send(input)
            try await agent.detach()
            try await host.attach()
            try await agent.detach(answering: host.stdin)
            try await host.attach()
            try await agent.run(["touch", "/tmp/go"], in: "k")
            shutdown(try #require(host.stdin).socket.raw, Int32(SHUT_WR))
            #expect(await host.readOutput() == Array("700000\n".utf8))
            #expect(try await agent.wait("k") == 0)
            #expect(FileManager.default.contents(atPath: agent.directory + "/shares/root/tmp/copy") == Data(input))
            try await agent.remove("k")
        }
    }

    @Test func aTerminalGoesOn() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "t", input: true)
            let script = "stty -echo; echo ready; read a; echo [$a]; read b; echo [$b]; read c; echo [$c]"
            let spec = agent.spec(["sh", "-c", script], id: "t") { $0.process?.terminal = true }
            try await agent.create("t", spec, host.numbers)
            try await agent.start("t")
            var output = try read(7, from: try #require(host.stdout).socket)
            for line in ["one\n", "two\n"] {
                try host.send(Array(line.utf8))
                async let rest = host.readOutput()
                try await agent.detach()
                output += await rest
                try await host.attach()
            }
            try host.send(Array("three\n".utf8))
            output += await host.readOutput()
            #expect(try await agent.wait("t") == 0)
            #expect(String(decoding: output, as: UTF8.self) == "ready\r\n[one]\r\n[two]\r\n[three]\r\n")
            try await agent.remove("t")
        }
    }

    @Test(arguments: [false, true]) func aProcessThatEndsMeanwhileKeepsItsOutput(isExec: Bool) async throws {
        let id = "e-\(isExec)"
        try await AgentUnderTest.play { agent in
            var host = try host(agent, id, errors: true)
            host.exec = isExec ? "x" : ""
            let script = "until [ -e /tmp/go ]; do sleep 0.05; done; echo late; echo too >&2; exit 7"
            if isExec {
                try await agent.create(id, agent.spec(["sleep", "1000"], id: id))
                try await agent.start(id)
                try await agent.startExec(["sh", "-c", script], in: id, exec: "x", host.numbers)
            } else {
                try await agent.create(id, agent.spec(["sh", "-c", script], id: id), host.numbers)
                try await agent.start(id)
            }
            try await agent.detach()
            #expect(await host.readOutput() == [])
            try await agent.run(["touch", "/tmp/go"], in: id)
            #expect(try await agent.wait(id, exec: host.exec) == 7)
            try await host.attach()
            #expect(await host.readOutput() == Array("late\n".utf8))
            #expect(await AgentUnderTest.readAll(try #require(host.stderr).socket) == Array("too\n".utf8))
            // Now there is nothing more: connections to it end at once.
            try await agent.detach()
            try await host.attach()
            #expect(await host.readOutput() == [])
            try await agent.remove(id)
        }
    }

    @Test func anOutputThatNobodyReadsIsNamed() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "r", errors: true)
            try await agent.create("r", agent.spec(["seq", "1", "1000000000"], id: "r"), host.numbers)
            try await agent.start("r")
            let old = try #require(host.stdout)
            var output = try read(1, from: old.socket)
            // Until the connection is full.
            var item = pollfd(fd: old.socket.raw, events: Int16(POLLIN), revents: 0)
            var (waiting, last): (Int32, Int32) = (0, -1)
            while waiting != last {
                last = waiting
                poll(&item, 1, -1)
                usleep(200_000)
                #expect(ioctl(old.socket.raw, UInt(FIONREAD), &waiting) == 0)
            }
            do {
                try await agent.detach()
                Issue.record("was detached")
            } catch let error as TTRPCError {
                #expect(error.code == .deadlineExceeded)
                #expect(error.message.contains("stdout of container r can't be detached"), "\(error.message)")
                #expect(!error.message.contains("stderr"), "\(error.message)")
            }
            try await host.attach()
            output += await AgentUnderTest.readAll(old.socket)
            output += try read(500_000, from: try #require(host.stdout).socket)
            #expect(isSequence(output))
            try await agent.kill("r")
            try await agent.remove("r")
        }
    }

    @Test func withoutANumberAnOutputIsDroppedAndAnInputEnds() async throws {
        try await AgentUnderTest.play { agent in
            var host = try host(agent, "z", input: true, errors: true)
            let script = "cat; seq 1 100000; echo end >&2"
            try await agent.create("z", agent.spec(["sh", "-c", script], id: "z"), host.numbers)
            try await agent.start("z")
            try host.send([])
            try await agent.detach()
            (host.stdin, host.stdout) = (nil, nil)
            try await host.attach()
            #expect(await AgentUnderTest.readAll(try #require(host.stderr).socket) == Array("end\n".utf8))
            #expect(try await agent.wait("z") == 0)
            try await agent.remove("z")
        }
    }

    @Test func whatCannotBeAttachedIsRefusedByName() async throws {
        try await AgentUnderTest.play { agent in
            try await agent.attach([])
            let host = try host(agent, "n")
            try await agent.create("n", agent.spec(["sleep", "1000"], id: "n"), host.numbers)
            for (process, code, message) in [
                (("n", "", host.numbers), TTRPCError.Code.failedPrecondition, "container n: its stdout is attached"),
                (("m", "", .init()), .notFound, "container m: no such container"),
                (("n", "x", .init()), .notFound, "process x of container n: no such process"),
            ] {
                do {
                    try await agent.attach([process])
                    Issue.record("was attached")
                } catch let error as TTRPCError {
                    #expect(error.code == code && error.message == "resume the sandbox: \(message)", "\(error)")
                }
            }
            do {
                try await agent.attach([], hostname: String(repeating: "x", count: 65))
                Issue.record("was named")
            } catch let error as TTRPCError { #expect(error.code == .invalidArgument, "\(error)") }
            try await agent.remove("n")
        }
    }
}

extension AgentUnderTest {
    /// - Parameter stdin: a connection that the host ends when the agent has.
    fileprivate func detach(answering stdin: (number: UInt64, socket: SharedDescriptor)? = nil) async throws(TTRPCError)
    {
        if let socket = stdin?.socket {
            do {
                try startThread("input") {
                    var item = pollfd(fd: socket.raw, events: 0x2000, revents: 0)  // POLLRDHUP
                    poll(&item, 1, -1)
                    shutdown(socket.raw, Int32(SHUT_WR))
                }
            } catch { Issue.record(error) }
        }
        _ = try await client.detachStreams(AgentEmpty(), timeout: .seconds(30))
    }

    fileprivate func attach(
        _ processes: [(container: String, exec: String, numbers: AgentStreams)], hostname: String = ""
    ) async throws(TTRPCError) {
        _ = try await client.resumeSandbox(
            .with {
                $0.hostname = hostname
                $0.processes = processes.map { process in
                    .with {
                        $0.containerID = process.container
                        $0.execID = process.exec
                        $0.streams = process.numbers
                    }
                }
            })
    }

    fileprivate func kill(_ id: String) async throws {
        _ = try await client.signalProcess(
            .with {
                $0.containerID = id
                $0.signal = 9
            })
    }

    fileprivate func startExec(
        _ arguments: [String], in container: String, exec: String, _ numbers: AgentStreams = .init()
    ) async throws {
        let json = try JSON.encode(OCISpec.Process(args: arguments, env: ["PATH=/bin"]))
        _ = try await client.execProcess(
            .with {
                $0.containerID = container
                $0.execID = exec
                $0.processJson = Data(json)
                $0.streams = numbers
            })
    }

    /// Runs a further process without streams to its end.
    fileprivate func run(_ arguments: [String], in container: String) async throws {
        try await startExec(arguments, in: container, exec: "run")
        #expect(try await wait(container, exec: "run") == 0)
    }
}
