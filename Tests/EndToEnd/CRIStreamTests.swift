import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What goes in and out of a pod's containers: exec, attach, forwarded ports, logs.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRIStreamTests {
        @Test func programsAreExecuted() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let container = try pod.start("one")
                let result = try container.execute(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
                #expect(result == .init(code: 7, output: "out\n", errors: "err\n"))
                #expect(try container.shell("head -c 1000000 /dev/zero | tr '\\0' x").utf8.count == 1_000_000)
                let sleep = ["/bin/sh", "-c", "echo begun >/tmp/begun; sleep 100"]
                if CRIO.isWanted {
                    let late = try container.execute(sleep, timeout: 2)
                    #expect(late.code == -1 && late.errors.contains("command timed out"), "\(late)")
                } else {
                    let late = #expect(throws: CRIError.self) { try container.execute(sleep, timeout: 2) }
                    #expect(
                        late?.description.contains("DEADLINE_EXCEEDED") == true
                            || late?.description.contains("timeout") == true, "\(String(describing: late))")
                }
                #expect(try container.shell("cat /tmp/begun; ps -o args | grep -c '^sleep 100$'; true") == "begun\n0\n")
                let none = #expect(throws: CRIError.self) { try container.execute(["/bin/none"]) }
                #expect(
                    none?.description.contains("exec: \"/bin/none\": stat /bin/none: no such file or directory")
                        == true,
                    "\(String(describing: none))")

                // By the streaming server, without a terminal and with one.
                let plain = try container.stream(
                    "Exec", ["/bin/sh", "-c", "read word; echo out $word; echo err >&2; exit 3"])
                plain.input?.write("typed\n")
                let end = try plain.finish()
                #expect(end.code == 3 && end.text == "out typed\n" && end.errorText == "err\n", "\(end)")
                let terminal = try container.stream(
                    "Exec", ["/bin/sh", "-c", "tty; stty size; read word; stty size; echo $word; exit 4"], tty: true,
                    size: "91x33")
                try terminal.output?.wait(for: "/dev/pts/")
                usleep(useconds_t(500_000 * Lab.patience))
                terminal.input?.write("typed\n")
                let told = try terminal.finish()
                #expect(told.code == 4 && told.text.contains("33 91\r\ntyped\r\n"), "\(told.text) \(told.errorText)")
                try pod.remove()
            }
        }

        @Test func onesStreamsAreJoined() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let plain = try pod.start(
                    "plain", "while read word; do echo got $word; [ $word = end ] && exit 5; done"
                ) {
                    $0["stdin"] = true
                }
                let first = try plain.stream("Attach")
                first.input?.write("one\n")
                try first.output?.wait(for: "got one\n")
                // One who looks on goes and comes back: stdin stays open.
                first.child.signal(SIGKILL)
                _ = try first.finish()
                let second = try plain.stream("Attach")
                second.input?.write("end\n")
                try second.output?.wait(for: "got end\n")
                #expect(try plain.wait()["exit_code"].int == 5)
                _ = try second.finish()
                #expect(plain.logLines == ["stdout F got one", "stdout F got end"])

                let terminal = try pod.start("terminal", "tty; while read word; do stty size; done") {
                    $0["stdin"] = true
                    $0["tty"] = true
                }
                let seen = try terminal.stream("Attach", tty: true, size: "77x22")
                seen.input?.write("\n")
                try seen.output?.wait(for: "22 77\r\n")
                seen.input?.close()
                seen.child.signal(SIGKILL)
                _ = try seen.finish()
                try pod.remove()
            }
        }

        /// To a server that listens on every address and to one that listens on 127.0.0.1 alone.
        @Test(.enabled(if: !CRIO.isWanted, "CRI-O forwards no ports into machines (RuntimeVM.PortForwardContainer)"))
        func portsAreForwarded() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let script =
                    "echo page >/tmp/page; nc -ll -p 8080 -e /bin/cat & httpd -p 127.0.0.1:8081 -h /tmp; sleep 1000"
                let container = try pod.start("server", script)
                try container.shell(
                    "for i in $(seq 50); do netstat -lnt | grep -q 8081 && exit; sleep 0.1; done; exit 1")
                for (port, words, answer) in [
                    (8080, "through\n", "through\n"), (8081, "GET /page HTTP/1.0\r\n\r\n", "page\n"),
                ] {
                    // What listens in the guest is known on the host a moment later.
                    var errors = ""
                    try waiting(within: .seconds(10), for: "an answer of port \(port)") {
                        let connection = try forward(pod, port)
                        connection.input?.write(words)
                        let came = (try? connection.output?.wait(for: answer, within: .seconds(3))) != nil
                        connection.child.signal(SIGKILL)
                        errors = try connection.finish().errorText
                        return came
                    }
                    #expect(errors == "")
                }
                let refused = try forward(pod, 9).finish()
                #expect(refused.errorText.contains("refused"), "\(refused)")
                try pod.remove()
            }
        }

        private func forward(_ pod: CRIPod, _ port: Int) throws -> Command {
            let message: JSONValue = ["pod_sandbox_id": "\(pod.id)", "port": [.number(Double(port))]]
            let url = try pod.call("PortForward", message)["url"].text
            return try pod.cri.start([CRIClient.program, "forward", url, "\(port)"], input: .pipe)
        }

        /// Whole lines and parts of long ones, both streams, each with its time; the file changes on request.
        @Test func outputIsLogged() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let container = try pod.start(
                    "talker",
                    """
                    echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf unfinished; sleep 0.5
                    while [ ! -e /tmp/go ]; do sleep 0.1; done; echo; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done
                    sleep 1000
                    """)
                try container.wait(forLog: "stderr F err")
                let first = (Leftovers.read(container.log) ?? "").split(separator: "\n").first ?? ""
                let time = try Regex("^20[0-9-]+T[0-9:]+[.][0-9]+(Z|[+-][0-9:]+) ")
                #expect(first.firstMatch(of: time) != nil, "\(first)")
                // containerd cuts it.
                let parts = CRIO.isWanted ? [20000] : [16384, 20000 - 16384]
                for (index, count) in parts.enumerated() {
                    let part =
                        (index == parts.count - 1 ? "stdout F " : "stdout P ") + String(repeating: "x", count: count)
                    try waiting(within: .seconds(20), for: "the long line") { container.logLines.contains(part) }
                }

                try Command.run("mv", [container.log, "\(container.log).1"])
                _ = try pod.call("ReopenContainerLog", ["container_id": "\(container.id)"])
                try container.shell(": >/tmp/go")
                try container.wait(forLog: "stdout F line 2000")
                let old = Leftovers.read("\(container.log).1") ?? ""
                let lines = (old + (Leftovers.read(container.log) ?? "")).split(separator: "\n")
                #expect(lines.filter { $0.contains(" stdout F line ") }.count == 2000)
                #expect(!old.contains("line 2000"))
                try pod.remove()
            }
        }
    }
}
