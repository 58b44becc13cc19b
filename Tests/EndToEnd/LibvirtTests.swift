import Glibc
import LinuxSystem
import Testing

#if Libvirt
    extension Containers {
        /// Pods that are domains of a libvirtd: what its tools see of them, and what they can do to them.
        @Suite(.enabled(if: Libvirtd.obstacle == nil, "no libvirtd"))
        struct LibvirtTests {
            /// Runs a container that says "up" and reads a line.
            private func play(
                script: String = "echo up; read line; echo got $line", privileged: Bool = false,
                _ body: (Scene, Libvirtd, _ domain: String, Command) throws -> Void
            ) throws {
                try Scene.play { scene in
                    let libvirtd = try Libvirtd(scene)
                    defer { try? libvirtd.stop() }
                    let id = scene.newID()
                    let bundle = try scene.bundle(script: script) { spec in
                        if !privileged { return }
                        spec.linux?.readonlyPaths = []
                        spec.linux?.maskedPaths = []
                    }
                    let run = try scene.start(
                        bundle: bundle, id: id,
                        global: scene.configuration("hypervisor = \"libvirt\"\nlibvirt.uri = \"\(libvirtd.uri)\""),
                        input: .pipe)
                    try run.output?.wait(for: "up\n")
                    try body(scene, libvirtd, "martlet-\(id)", run)
                }
            }

            @Test func libvirtsToolsSeeThePod() throws {
                try play { scene, libvirtd, domain, run in
                    #expect(try libvirtd.virsh("list", "--name").lines.contains(domain))
                    let id = domain.dropFirst("martlet-".count)
                    #expect(try libvirtd.virsh("desc", "--title", domain).text.contains("Martlet pod \(id)"))
                    let metadata = try libvirtd.virsh("metadata", domain, "--uri", "urn:martlet:pod").text
                    #expect(metadata.contains("id=\"\(id)\""), "\(metadata)")
                    let xml = try libvirtd.virsh("dumpxml", domain).text
                    #expect(
                        xml.contains("<driver type='virtiofs' queue='512'/>") && xml.contains("<access mode='shared'/>")
                    )
                    let statistics = try libvirtd.virsh("domstats", domain).text
                    #expect(
                        statistics.contains("state.state=1") && statistics.contains("balloon.current="), "\(statistics)"
                    )
                    // Nobody but QEMU's user can reach the devices, and it has connected already.
                    #expect(try Command.shell("ls /run/martlet-libvirt/*") == "")
                    run.input?.write("it\n")
                    let outcome = try run.finish()
                    #expect(outcome.code == 0 && outcome.text.hasSuffix("got it\n"), "\(outcome.errorText)")
                    #expect(try !libvirtd.virsh("list", "--all", "--name").lines.contains(domain), "it is transient")
                    #expect(try Command.shell("ls /run/martlet-libvirt") == "")
                }
            }

            /// The pod's limits on the host hold for its QEMU.
            @Test func qemuIsInThePodsCgroup() throws {
                try play { _, libvirtd, domain, run in
                    let pid = try #require(try libvirtd.pid(of: domain))
                    let lines = try readText("/proc/\(pid)/cgroup").split(separator: "\n")
                    #expect(!lines.isEmpty)
                    for line in lines {
                        #expect(line.hasSuffix(":/martlet/\(domain.dropFirst("martlet-".count))"), "\(line)")
                    }
                    run.input?.write("it\n")
                    #expect(try run.finish().code == 0)
                }
            }

            @Test func aDestroyedDomainEndsThePodWithThatCause() throws {
                try play { _, libvirtd, domain, run in
                    #expect(try libvirtd.virsh("destroy", domain).code == 0)
                    let outcome = try run.finish(within: .seconds(30))
                    #expect(outcome.code == 255 && outcome.errorText.contains("virsh destroy"), "\(outcome.errorText)")
                }
            }

            @Test func aLibvirtdThatIsRestartedLosesNothing() throws {
                try play(script: "echo up; while read line; do echo got $line; done") { scene, libvirtd, domain, run in
                    try libvirtd.stop()
                    run.input?.write("without\n")
                    try run.output?.wait(for: "got without\n")
                    try libvirtd.start()
                    #expect(try libvirtd.virsh("list", "--name").lines.contains(domain))
                    // A command of Martlet's that goes through libvirt.
                    let id = String(domain.dropFirst("martlet-".count))
                    for command in ["pause", "resume"] {
                        let outcome = try Command(
                            Lab.martlet, ["--root", scene.root, command, id], environment: Lab.environment
                        ).finish()
                        #expect(outcome.code == 0, "\(outcome.errorText)")
                    }
                    run.input?.write("again\n")
                    try run.output?.wait(for: "got again\n")
                    // And an event of libvirt's.
                    #expect(try libvirtd.virsh("destroy", domain).code == 0)
                    let outcome = try run.finish(within: .seconds(30))
                    #expect(outcome.code == 255 && outcome.errorText.contains("virsh destroy"), "\(outcome.errorText)")
                }
            }

            @Test func theConsoleShowsWhatTheKernelSays() throws {
                let script = "echo up; read x; echo c >/proc/sysrq-trigger; sleep 100"
                try play(script: script, privileged: true) { scene, libvirtd, domain, run in
                    let terminal = try Pty(rows: 24, columns: 80)
                    let console = try Command(
                        "setsid", ["--ctty", "virsh", "-c", libvirtd.uri, "console", domain],
                        input: .descriptor(terminal.slave), output: .descriptor(terminal.slave),
                        environment: Lab.environment)
                    usleep(1_500_000)
                    run.input?.write("\n")
                    let outcome = try run.finish(within: .seconds(30))
                    #expect(outcome.code == 255 && outcome.errorText.contains("Kernel panic"), "\(outcome.errorText)")
                    var shown: [UInt8] = []
                    var buffer = [UInt8](repeating: 0, count: 4096)
                    try terminal.master.duplicate().setNonBlocking(true)
                    _ = console.child.waitForEnd(timeout: .seconds(10))
                    while case let count = read(terminal.master.raw, &buffer, buffer.count), count > 0 {
                        shown += buffer.prefix(count)
                    }
                    let text = String(decoding: shown, as: UTF8.self)
                    #expect(text.contains("Kernel panic"), "\(text)")
                }
            }
        }
    }
#endif
