import Glibc
import LinuxSystem
import Testing

@Suite struct ChildProcessTests {
    private func shell(_ script: String, descriptors: [Int32] = [-1, -1, -1]) throws -> ChildProcess {
        try ChildProcess("sh", .init(executable: "/bin/sh", arguments: ["-c", script], descriptors: descriptors))
    }

    @Test func everyExitCodeComesThrough() async throws {
        for code in Int32(0)...255 {
            let end = try await shell("exit \(code)").end()
            #expect(end == .exited(code))
            #expect(end.status == code)
        }
    }

    @Test func deathBySignalIs128AndTheSignal() async throws {
        for signal in [SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1] {
            let end = try await shell("kill -\(signal) $$").end()
            #expect(end == .signaled(signal))
            #expect(end.status == 128 + signal)
        }
        #expect(ProcessEnd.signaled(SIGKILL).description.contains("SIGKILL"))
    }

    @Test func missingProgramIsNamed() throws {
        #expect {
            try ChildProcess("none", .init(executable: "/nonexistent", arguments: [], descriptors: []))
        } throws: { error in
            "\(error)".contains("exec /nonexistent") && "\(error)".contains("No such file")
        }
    }

    /// What a shell writes, once nobody can write any more.
    private func output(of command: ChildProcess.Command) throws -> (text: String, end: ProcessEnd?) {
        let (child, output) = try ChildProcess.withPipe("sh", command)
        return (read(output), child.waitForEnd())
    }

    private func read(_ output: SharedDescriptor) -> String {
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 256)
        while case let count = Glibc.read(output.raw, &buffer, buffer.count), count > 0 {
            text += String(decoding: buffer.prefix(count), as: UTF8.self)
        }
        return text
    }

    @Test func argumentsBeginWithTheNameThatIsAskedFor() throws {
        var command = ChildProcess.Command(
            executable: "/bin/sh", arguments: ["-c", "tr '\\0' ' ' </proc/$$/cmdline; echo $1", "zero", "one"],
            descriptors: [-1, ChildProcess.pipe, -1])
        #expect(try output(of: command).text.hasPrefix("/bin/sh -c "))
        command.argv0 = "libnetwork-setkey"
        let named = try output(of: command).text
        #expect(named.hasPrefix("libnetwork-setkey -c ") && named.hasSuffix("one\n"), "\(named)")
    }

    @Test func startsInTheDirectoryThatIsAskedFor() throws {
        var command = ChildProcess.Command(
            executable: "/bin/sh", arguments: ["-c", "pwd"], descriptors: [-1, ChildProcess.pipe, -1],
            directory: "/usr")
        #expect(try output(of: command).text == "/usr\n")
        command.directory = "/nonexistent"
        #expect { try output(of: command) } throws: { error in
            "\(error)".contains("chdir /nonexistent") && "\(error)".contains("No such file")
        }
    }

    /// The child ends at once; what it has started holds the pipe.
    @Test func aSignalReachesTheWholeGroup() throws {
        let (child, output) = try ChildProcess.withPipe(
            "sh",
            .init(
                executable: "/bin/sh", arguments: ["-c", "sleep 60 & echo up"],
                descriptors: [-1, ChildProcess.pipe, -1],
                newSession: true))
        #expect(child.waitForEnd() == .exited(0))
        let start = ContinuousClock.now
        child.signalGroup(SIGKILL)
        #expect(read(output) == "up\n")
        #expect(ContinuousClock.now - start < .seconds(30))
    }

    @Test func inheritsOnlyWhatItIsGiven() async throws {
        let (read, write) = try SharedDescriptor.pipe()
        let leaked = try OwnedDescriptor.open("/dev/null", O_RDONLY)
        _ = fcntl(leaked.raw, F_SETFD, 0)
        let end = try await shell(
            "ls /proc/self/fd >&3; test -e /proc/$$/fd/4 && exit 1 || exit 0", descriptors: [-1, -1, -1, write.raw]
        ).end()
        #expect(end == .exited(0))
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = Glibc.read(read.raw, &buffer, buffer.count)
        #expect(String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self).split(separator: "\n").count <= 5)
    }

    @Test func aPipeEndsWithTheChild() throws {
        let (child, output) = try ChildProcess.withPipe(
            "sh",
            .init(
                executable: "/bin/sh", arguments: ["-c", "echo out; echo err >&2"],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe]))
        // Until the end, which comes only when nobody has the other end any more.
        #expect(read(output) == "out\nerr\n")
        #expect(child.waitForEnd() == .exited(0))
    }

    @Test func endsWithItsParent() async throws {
        // The child's child is asked to die with it.
        let child = try ChildProcess(
            "sleep",
            .init(executable: "/bin/sleep", arguments: ["60"], descriptors: [-1, -1, -1], diesWithParent: true))
        #expect(child.ended == nil)
        #expect(child.waitForEnd(timeout: .milliseconds(50)) == nil)
        child.signal(SIGTERM)
        #expect(await child.end() == .signaled(SIGTERM))
        child.signal(SIGTERM)  // no error, no other process hit
    }
}
