import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// What a pod that is a machine can't have is refused, by the name that its author knows.
    @Suite(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
    struct CRIRefusalTests {
        @Test func whatIsTheHostsIsRefused() throws {
            try CRI.play { cri in
                for (option, name) in [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")] {
                    let error = #expect(throws: CRIError.self) {
                        try cri.run { $0["linux"]["security_context"]["namespace_options"][option] = "NODE" }
                    }
                    let words = "\(error.map { "\($0)" } ?? "")"
                    #expect(words.contains("\(name): in a pod that is a virtual machine"), "\(words)")
                    #expect(cri.settledLeftovers() == [])
                }
            }
        }

        /// Privileged: everything inside its machine, and no device of the host.
        @Test func privilegedIsWithinTheMachine() throws {
            try CRI.play { cri in
                // Some device whose number means nothing elsewhere.
                let device = try cri.scene.makeDirectory("devices") + "/disk"
                try #require(mknod(device, S_IFBLK | 0o600, 259 << 8 | 77) == 0)
                func privileged(_ config: inout JSONValue) { config["linux"]["security_context"]["privileged"] = true }
                let pod = try cri.run(edit: privileged)
                let container = try pod.start("one", edit: privileged)
                #expect(
                    try container.shell("mkdir /tmp/m; mount -t tmpfs none /tmp/m && touch /tmp/m/file && echo done")
                        == "done\n")
                try pod.remove()

                let other = try cri.run("devices", edit: privileged)
                let given = { (config: inout JSONValue) in
                    config["devices"] = [
                        ["container_path": "/dev/here", "host_path": "\(device)", "permissions": "rw"]
                    ]
                }
                let all = try other.start("all", edit: privileged)
                #expect(try all.shell("test -c /dev/hwrng && ! ls /dev/here 2>/dev/null && echo guest") == "guest\n")
                let error = #expect(throws: CRIError.self) { try other.start("one", edit: given) }
                let words = "\(error.map { "\($0)" } ?? "")"
                #expect(words.contains("a device of the host, which the virtual machine does not have"), "\(words)")
                #expect(try other.start("two").execute(["/bin/true"]).code == 0)
                try other.remove()
            }
        }

        /// `kubectl debug --target`.
        @Test func anothersProcessesAreJoined() throws {
            try CRI.play { cri in
                let pod = try cri.run()
                let one = try pod.start("one")
                let own = try one.execute(["/bin/cat", "/proc/1/cmdline"])
                let debugger = try pod.start("debugger") {
                    $0["linux"]["security_context"]["namespace_options"] = [
                        "pid": "TARGET", "target_id": "\(one.id)",
                    ]
                }
                let seen = try debugger.execute([
                    "/bin/sh", "-c", "echo $(ls -d /proc/[0-9]* | wc -l); cat /proc/1/cmdline",
                ])
                #expect(seen.code == 0 && seen.output.hasSuffix(own.output), "\(seen)")
                #expect(
                    Int(seen.output.split(separator: "\n").first ?? "").map { $0 > 2 } == true,
                    "its own process is another: \(seen)")
                try pod.remove()
            }
        }
    }
}
