import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// Terminals and streams as containerd's clients name them.
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdStdioTests {
        /// Tells its terminal's size whenever that changes, until it reads a line.
        private static let script = """
            trap 'stty size' WINCH
            test -t 0 && test -t 1 && test -t 2 && stty size && echo all
            while ! read -t 1 line; do :; done
            echo "got $line"; exit 5
            """

        @Test func aTerminalHasThePersonsSizeAndFollowsIt() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                let run = Containerd.run(["--rm", "--tty"], id, ["/bin/sh", "-c", Self.script])
                try talk(containerd, run) {
                    let exec = ["task", "exec", "--tty", "--exec-id", "one", id, "/bin/sh", "-c", Self.script]
                    try talk(containerd, exec)
                }
            }
        }

        /// Plays a person at a terminal.
        private func talk(_ containerd: Containerd, _ arguments: [String], meanwhile: () throws -> Void = {}) throws {
            let pty = try Pty(rows: 33, columns: 101)
            let screen = try Collector(pty.master)
            let command = try containerd.begin(arguments, terminal: pty)
            try screen.wait(for: "all\r")
            // ctr sets the size when the process runs already.
            if !screen.text.contains("33 101\r") { try screen.wait(for: "33 101\r", within: .seconds(10)) }
            try meanwhile()
            try pty.resize(rows: 20, columns: 64)
            try screen.wait(for: "20 64\r", within: .seconds(10))
            var line = Array("hello\r".utf8)
            #expect(write(pty.master.raw, &line, line.count) == line.count)
            try screen.wait(for: "got hello\r", within: .seconds(10))
            #expect(try command.finish().code == 5, "\(screen.text)")
            #expect(pty.isCooked, "the person's terminal is as it was")
        }

        @Test func inputEndsWhenTheClientSaysSo() throws {
            try Containerd.play { containerd, scene in
                let id = scene.newID()
                // What comes before the end is whole.
                let input = String(repeating: "0123456789abcdef", count: 20_000)
                let run = try containerd.begin(
                    Containerd.run(["--rm"], id, ["/bin/sh", "-c", "echo up; wc -c; sleep 5"]), input: "")
                // ctr forgets an end that comes before the container is there.
                try run.output?.wait(for: "up\n")
                run.input?.write(input)
                run.input?.close()
                try run.output?.wait(for: "\(input.utf8.count)\n")
                let exec = try containerd.begin(["task", "exec", "--exec-id", "one", id, "/bin/cat"], input: "typed\n")
                try exec.output?.wait(for: "typed\n")
                exec.input?.close()
                #expect(try exec.finish().code == 0)
                #expect(try run.finish().code == 0)
            }
        }

        @Test func outputGoesToFilesAndPrograms() throws {
            try Containerd.play { containerd, scene in
                let script = ["/bin/sh", "-c", "echo out; echo err >&2; exit 4"]
                let file = "\(scene.directory)/deep/output"
                let program = try scene.write(
                    "logger",
                    """
                    #!/bin/sh
                    echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" >\(scene.directory)/words
                    exec 5>&-
                    cat <&3 >\(scene.directory)/out & cat <&4 >\(scene.directory)/err &
                    wait; exec sleep 3

                    """)
                chmod(program, 0o755)
                var ids: [String] = []
                for uri in ["file://\(file)", "binary://\(program)?key=a+value"] {
                    let id = scene.newID()
                    ids.append(id)
                    try containerd.begin(Containerd.run(["-d", "--log-uri", uri], id, script)).finishWell()
                    try containerd.wait(for: "STOPPED", of: id)
                    #expect(try containerd.ctr("task", "rm", id).errorText.contains("non-zero exit code 4"))
                    try containerd.succeed("container", "rm", id)
                }
                let lines = (Leftovers.read(file) ?? "").split(separator: "\n").sorted()
                #expect(lines == ["err", "out"])
                #expect(Leftovers.read("\(scene.directory)/words") == "default \(ids[1]) key a value\n")
                #expect(Leftovers.read("\(scene.directory)/out") == "out\n")
                #expect(Leftovers.read("\(scene.directory)/err") == "err\n")
            }
        }
    }
}
