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
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 256)
        // Until the end, which comes only when nobody has the other end any more.
        while case let count = read(output.raw, &buffer, buffer.count), count > 0 {
            text += String(decoding: buffer.prefix(count), as: UTF8.self)
        }
        #expect(text == "out\nerr\n")
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
