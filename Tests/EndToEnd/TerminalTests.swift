import CLinux
import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    @Suite struct TerminalTests {
        /// Tells its terminal's size whenever that changes, until it reads a line.
        private static let script = """
            trap 'stty size' WINCH
            tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all
            while ! read -t 1 line; do :; done
            echo "got $line"; exit 5
            """

        private func bundle(_ scene: Scene, edit: (inout Spec) -> Void = { _ in }) throws -> String {
            try scene.bundle(script: Self.script) { spec in
                spec.process?.terminal = true
                edit(&spec)
            }
        }

        @Test func aTerminalHasThePersonsSizeAndFollowsIt() throws {
            try Scene.play { scene in
                let pty = try Pty(rows: 33, columns: 101)
                let screen = try Collector(pty.master)
                // setsid makes the terminal the controlling one, as a login would.
                let run = try Command(
                    "setsid",
                    ["-c", Lab.martlet] + scene.runArguments(bundle: bundle(scene)),
                    input: .descriptor(pty.slave), output: .descriptor(pty.slave), errors: .descriptor(pty.slave))
                try screen.wait(for: "all\r\n")
                // On a busy machine lines about the progress come before it.
                #expect(screen.text.contains("/dev/pts/0\r\n33 101\r\n"), "\(screen.text)")
                try pty.resize(rows: 20, columns: 64)
                try screen.wait(for: "20 64\r\n", within: .seconds(10))
                var line = Array("hello\r".utf8)
                #expect(write(pty.master.raw, &line, line.count) == line.count)
                try screen.wait(for: "got hello\r\n", within: .seconds(10))
                #expect(try run.finish().code == 5)
                // Echoed once, by the terminal in the guest: the person's own was raw meanwhile.
                #expect(screen.text.split(separator: "hello").count == 3, "\(screen.text)")
                #expect(pty.isCooked, "the person's terminal is as it was")
            }
        }

        /// As with runc: the terminal of whoever calls may be another stream than stdin, and a pipe gets line feeds alone.
        @Test func outputToAPipeHasLineFeedsAlone() throws {
            try Scene.play { scene in
                let pty = try Pty(rows: 33, columns: 101)
                let bundle = try scene.bundle(script: "tty; stty size") { $0.process?.terminal = true }
                let run = try Command(
                    Lab.martlet, scene.runArguments(bundle: bundle), input: .null, output: .pipe,
                    errors: .descriptor(pty.slave))
                let outcome = try run.finish(within: .seconds(60))
                #expect(outcome.text.hasPrefix("/dev/pts/0\n33 101\n"), "\(outcome)")
            }
        }

        @Test func aConsoleSocketGetsTheTerminal() throws {
            try Scene.play { scene in
                let path = "\(scene.directory)/console"
                let listener = try UnixAddress.listen(path)
                let bundle = try bundle(scene) { $0.process?.consoleSize = ConsoleSize(height: 11, width: 22) }
                let run = try scene.start(bundle: bundle, options: ["--console-socket", path])
                let master = try Pty.receive(listener: listener.raw)
                let screen = try Collector(master)
                try screen.wait(for: "all\r\n")
                #expect(screen.text.contains("\r\n11 22\r\n"), "\(screen.text)")
                var size = winsize(ws_row: 44, ws_col: 55, ws_xpixel: 0, ws_ypixel: 0)
                try check("TIOCSWINSZ", "", martlet_ioctl_pointer(master.raw, UInt(TIOCSWINSZ), &size))
                run.child.signal(SIGWINCH)
                try screen.wait(for: "44 55\r\n", within: .seconds(10))
                var line = Array("x\r".utf8)
                #expect(write(master.raw, &line, line.count) == line.count)
                let outcome = try run.finish()
                #expect(outcome.code == 5)
                #expect(outcome.text == "" && outcome.errorText == "")
                unlink(path)
            }
        }
    }
}
