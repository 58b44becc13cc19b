import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// Programs of the host that are started for somebody else: hooks and logging programs.
@Suite final class HostProgramTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/martlet-programs.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func execute(_ hook: Hook) throws {
        try HostHooks.execute(hook, name: "hooks.x[0]", state: Data(#"{"id":"a"}"#.utf8), bundle: directory)
    }

    /// dockerd's network hook is /proc/PID/exe, which does what its argv[0] says.
    @Test func aHooksArgumentsAreItsArgv() throws {
        let script = "tr '\\0' '|' </proc/$$/cmdline >argv; pwd >where; env >environment; cat >state"
        try execute(Hook(path: "/bin/sh", args: ["libnetwork-setkey", "-c", script, "x", "y"], env: ["A=b"]))
        #expect(try readText("\(directory)/argv") == "libnetwork-setkey|-c|\(script)|x|y|")
        #expect(try readText("\(directory)/where") == "\(directory)\n")
        #expect(try readText("\(directory)/environment").contains("A=b\n"))
        #expect(try readText("\(directory)/state") == #"{"id":"a"}"#)
        // Without any, the path is the name.
        let program = "\(directory)/program"
        let file = try OwnedDescriptor.open(program, O_WRONLY | O_CREAT, mode: 0o755)
        let text = Array("#!/bin/sh\necho \"$0\" >name\n".utf8)
        #expect(write(file.raw, text, text.count) == text.count)
        close(file.release())
        try execute(Hook(path: program))
        #expect(try readText("\(directory)/name") == "\(program)\n")
    }

    @Test func aHookThatFailsOrTakesTooLongIsNamed() throws {
        func refusal(_ hook: Hook) -> String {
            (#expect(throws: SandboxError.self) { try execute(hook) })?.description ?? ""
        }
        #expect(
            refusal(Hook(path: "/bin/sh", args: ["sh", "-c", "echo no >&2; exit 3"]))
                == "hooks.x[0]: exited with code 3: no")
        #expect(refusal(Hook(path: "/nonexistent")).contains("hooks.x[0]: exec /nonexistent: No such file"))
        // What it has started ends with it.
        let script = "sleep 60 & echo $! >child; wait"
        let late = refusal(Hook(path: "/bin/sh", args: ["sh", "-c", script], timeout: 1))
        #expect(late == "hooks.x[0]: has not ended after 1 s")
        #expect(try hasEnded("child"))
    }

    @Test func aLoggingProgramThatIsNeverReadyIsEnded() throws {
        let command = try LoggingProgram.Command("/bin/sh?-c=sleep+60+%26+echo+$!+>\(directory)/child;+wait", "stdout")
        #expect(command.arguments.count == 2)
        let start = ContinuousClock.now
        let error = #expect(throws: SandboxError.self) {
            try LoggingProgram(command, container: "c", namespace: "n", timeout: .seconds(1))
        }
        #expect(error?.description == "logging program /bin/sh: was not ready within 1.0 seconds")
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(try hasEnded("child"))
    }

    @Test func aLoggingProgramTakesBothStreams() throws {
        let script = "exec+5>%26-;+cat+<%263+>\(directory)/out;+cat+<%264+>\(directory)/err;+echo+>\(directory)/done"
        let command = try LoggingProgram.Command("/bin/sh?-c=\(script)", "stdout")
        do {
            let program = try LoggingProgram(command, container: "c", namespace: "n")
            #expect(write(program.stdout.raw, "one", 3) == 3 && write(program.stderr.raw, "two", 3) == 3)
        }
        let end = ContinuousClock.now + .seconds(20)
        while access("\(directory)/done", F_OK) != 0, ContinuousClock.now < end { usleep(5_000) }
        #expect(try readText("\(directory)/out") == "one" && readText("\(directory)/err") == "two")
    }

    /// Whether the process whose number is in a file has ended, at once or within a moment.
    private func hasEnded(_ file: String) throws -> Bool {
        let pid = try #require(Int32(try readText("\(directory)/\(file)").split(separator: "\n").first ?? ""))
        let end = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < end {
            // A zombie has ended: nobody may be there to wait for it.
            let state = (try? readText("/proc/\(pid)/stat"))?.split(separator: ")").last?.first { $0 != " " }
            if state == nil || state == "Z" { return true }
            usleep(10_000)
        }
        return false
    }
}
