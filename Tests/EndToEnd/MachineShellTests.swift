import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// `martlet pod shell`.
    @Suite struct MachineShellTests {
        private static let settings = "vm.debug_console = true"

        /// A pod whose container sleeps.
        private func play(settings: String = settings, _ body: (CommandLineContainer) throws -> Void) throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene, settings: settings)
                try container.create(bundle: scene.bundle(args: ["sleep", "1000"]))
                try container.succeed("start", container.id)
                try body(container)
                try container.succeed("delete", "--force", container.id)
            }
        }

        @Test func aProgramSeesTheMachine() throws {
            try play { container in
                let script = """
                    id -u; cat /proc/1/comm; ls /run/martlet/containers; ps | grep -c '[s]leep 1000'; read line; echo "got $line"
                    echo wrong >&2; sleep 500 & exit 7
                    """
                let run = try container.begin(
                    ["pod", "shell", container.id, "--", "sh", "-c", script], input: .pipe)
                run.input?.write("hello\n")
                run.input?.close()
                let outcome = try run.finish()
                #expect(outcome.code == 7, "\(outcome.errorText)")
                #expect(outcome.errorText == "wrong\n")
                #expect(outcome.lines.count == 5 && outcome.lines.first == "0", "\(outcome.text)")
                #expect(outcome.lines.contains(container.id) && outcome.lines.suffix(2) == ["1", "got hello"])
                // What it has left behind is gone, and the machine has its tools already.
                let rest = try container.run(
                    "pod", "shell", container.id, "--", "sh", "-c", "ps | grep -c '[s]leep 500'")
                #expect(rest.text == "0\n" && rest.code == 1, "\(rest.text) \(rest.errorText)")
            }
        }

        @Test func aShellHasThePersonsTerminal() throws {
            try play { container in
                let pty = try Pty(rows: 31, columns: 97)
                let screen = try Collector(pty.master)
                let run = try container.begin(
                    ["pod", "shell", container.id], input: .descriptor(pty.slave), output: .descriptor(pty.slave),
                    errors: .descriptor(pty.slave))
                func type(_ text: String) { _ = text.withCString { write(pty.master.raw, $0, strlen($0)) } }
                type("stty size; tty\r")
                try screen.wait(for: "31 97\r\n")
                try screen.wait(for: "/dev/pts/0\r\n")
                type("exit 3\r")
                #expect(try run.finish().code == 3)
                #expect(pty.isCooked)
            }
        }

        @Test func aKilledCommandEndsItsProgram() throws {
            try play { container in
                let run = try container.begin(["pod", "shell", container.id, "--", "sh", "-c", "echo up; sleep 700"])
                try run.output?.wait(for: "up\n")
                run.child.signal(SIGTERM)
                #expect(try run.finish().code == 128 + SIGTERM)
                let rest = try container.run(
                    "pod", "shell", container.id, "--", "sh", "-c", "ps | grep -c '[s]leep 700'")
                #expect(rest.text == "0\n", "\(rest.text) \(rest.errorText)")
            }
        }

        @Test func whatIsNotAllowedIsRefused() throws {
            try play(settings: "") { container in
                let outcome = try container.run("pod", "shell", container.id, "--", "true")
                #expect(outcome.code == 255 && outcome.errorText.contains("vm.debug_console"), "\(outcome.errorText)")
                let dynamic = try container.run("pod", "shell", "--tool", "/bin/bash", container.id)
                #expect(
                    dynamic.code == 255 && dynamic.errorText.contains("not statically linked"), "\(dynamic.errorText)")
                let none = try container.run("pod", "shell", "--tool", "no-such-tool", container.id)
                #expect(none.code == 255 && none.errorText.contains("no such program"), "\(none.errorText)")
            }
        }
    }
}
