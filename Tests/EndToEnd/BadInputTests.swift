import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Bad input: one clear line, an exit code that is not 0, and nothing left.
    @Suite struct BadInputTests {
        private func expect(
            _ outcome: Outcome, says words: String..., code: Int32 = 1,
            sourceLocation: SourceLocation = #_sourceLocation
        ) {
            #expect(outcome.code == code, sourceLocation: sourceLocation)
            #expect(outcome.text == "", sourceLocation: sourceLocation)
            #expect(outcome.errorLines.count == 1, "\(outcome.errorText)", sourceLocation: sourceLocation)
            for word in words {
                #expect(outcome.errorText.contains(word), "\(outcome.errorText)", sourceLocation: sourceLocation)
            }
        }

        @Test func bundlesThatAreNone() throws {
            try Scene.play { scene in
                let missing = "\(scene.directory)/none"
                try expect(scene.run(bundle: missing), says: missing, "No such file or directory")
                let empty = try scene.makeDirectory("empty")
                try expect(scene.run(bundle: empty), says: "\(empty)/config.json", "No such file or directory")
                try expect(scene.run(bundle: scene.write("file", "")), says: "not a directory")
            }
        }

        @Test func brokenJSONHasItsLineAndColumn() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(args: ["sh"])
                try scene.write("\(bundle)/config.json", "{\n  \"ociVersion\": \"1.2.0\",\n  \"process\": {]\n}\n")
                try expect(scene.run(bundle: bundle), says: "config.json: line 3, column 15: unexpected character ']'")
                try scene.write(
                    "\(bundle)/config.json", #"{"ociVersion":"1.2.0","process":{"cwd":"/","args":["a",2]}}"#)
                try expect(scene.run(bundle: bundle), says: "config.json: process.args[1]: expected a string")
            }
        }

        @Test func configurationsThatCannotBe() throws {
            try Scene.play { scene in
                try expect(scene.run(bundle: scene.bundle(args: [])), says: "process.args: must not be empty")
                let noRoot = try scene.bundle(rootfs: .directory("nowhere"), args: ["/bin/sh"])
                try expect(scene.run(bundle: noRoot), says: "root.path", "\(noRoot)/nowhere")
                let noSource = try scene.bundle(args: ["/bin/sh"]) {
                    $0.mounts.append(Mount(destination: "/x", type: "bind", source: "/no/such", options: ["bind"]))
                }
                try expect(scene.run(bundle: noSource), says: "mounts[7].source", "/no/such")
                let mapped = try scene.bundle(args: ["/bin/sh"]) {
                    $0.mounts[0].uidMappings = [.init(containerID: 0, hostID: 1, size: 1)]
                    $0.mounts[0].gidMappings = $0.mounts[0].uidMappings
                }
                try expect(scene.run(bundle: mapped), says: "mounts[0].uidMappings")
                let hook = try scene.bundle(args: ["/bin/sh"]) {
                    $0.hooks = Hooks()
                    $0.hooks?.createRuntime = [Hook(path: "/bin/sh", args: ["sh", "-c", "echo no >&2; exit 3"])]
                }
                try expect(
                    scene.run(bundle: hook),
                    says: "error running createRuntime hook #0: /bin/sh: exited with code 3: no")
                let foreign = try scene.bundle(args: ["/bin/sh"]) { $0.annotations["io.martlet.vm.vcpus"] = "2" }
                try expect(scene.run(bundle: foreign), says: "annotation io.martlet.vm.vcpus: not allowed")
                let terminal = try scene.bundle(args: ["/bin/sh"]) { $0.process?.terminal = true }
                try expect(scene.run(bundle: terminal), says: "process.terminal", "no standard stream is a terminal")
            }
        }

        @Test(arguments: ["a/b", "..", ".", "../../x", "a b", ""])
        func idsThatAreNoNames(_ id: String) throws {
            try Scene.play { scene in
                try expect(scene.run(bundle: scene.bundle(args: ["/bin/sh"]), id: id), says: "container id \"\(id)\"")
            }
        }

        @Test func aSecondContainerOfTheSameID() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
                let id = scene.newID()
                let first = try scene.start(bundle: bundle, id: id)
                try first.output?.wait(for: "ready\n")
                try expect(scene.run(bundle: bundle, id: id), says: id, "already exists")
                #expect(first.child.ended == nil)
                first.child.signal(SIGTERM)
                #expect(try first.finish(within: .seconds(20)).code == 3)
                // The id is free again.
                let again = try scene.run(bundle: scene.bundle(script: "exit 4"), id: id)
                #expect(again.code == 4, "\(again.errorText)")
            }
        }

        /// Found out in the guest, so each takes a machine.
        @Test func whatTheGuestFindsMissing() throws {
            try Scene.play { scene in
                let program = try scene.start(bundle: scene.bundle(args: ["/bin/no-such-program"]))
                let directory = try scene.start(
                    bundle: scene.bundle(args: ["/bin/sh"]) { $0.process?.cwd = "/etc/passwd/x" })
                try expect(program.finish(), says: "/bin/no-such-program", "no such file or directory")
                try expect(directory.finish(), says: "/etc/passwd/x")
                let inPath = try scene.start(bundle: scene.bundle(args: ["no-such-program"]))
                let user = try scene.start(
                    bundle: scene.bundle(args: ["/bin/sh"]) { $0.process?.user.username = "nosuch" })
                try expect(inPath.finish(), says: "no-such-program", "PATH")
                try expect(user.finish(), says: "nosuch")
            }
        }

        @Test func guestImagesThatCannotBoot() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(args: ["/bin/sh"])
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.kernel = \"/no/kernel\"")),
                    says: "/no/kernel",
                    "No such file or directory")
                let text = try scene.write("text", "this is no kernel\n")
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.kernel = \"\(text)\"")), says: text,
                    "neither an ELF vmlinux nor a bzImage")
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.initramfs = \"/no/initramfs\"")),
                    says: "/no/initramfs")
                let kernel = "\(scene.directory)/vmlinux"
                try Command.shell(
                    "head -c 1000000 $(ls \(Lab.guest)/vmlinux \(Lab.guest)/bzImage 2>/dev/null | head -n1) >\(kernel)")
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.kernel = \"\(kernel)\"")), says: kernel,
                    "truncated")
            }
        }

        /// A kernel whose headers are right and whose code is not: the machine resets, or hangs until the deadline.
        @Test func aKernelThatIsCorrupt() throws {
            try Scene.play { scene in
                let kernel = "\(scene.directory)/kernel"
                try Command.shell(
                    """
                    cp $(ls \(Lab.guest)/vmlinux \(Lab.guest)/bzImage 2>/dev/null | head -n1) \(kernel)
                    head -c 15000000 /dev/zero | tr '\\0' '\\314' | dd of=\(kernel) bs=1M seek=1 conv=notrunc status=none
                    """)
                let global = try scene.configuration("vm.kernel = \"\(kernel)\"\nagent.start_timeout_s = 6")
                let began = ContinuousClock.now
                let outcome = try scene.run(bundle: scene.bundle(args: ["/bin/sh"]), global: global)
                #expect(outcome.code != 0)
                #expect(outcome.errorLines.count >= 1 && outcome.text == "", "\(outcome.errorText)")
                #expect(ContinuousClock.now - began < .seconds(15) * Lab.patience)
            }
        }

        @Test func hostsThatCannot() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(args: ["/bin/sh"])
                let noQEMU = "hypervisor = \"qemu\"\nqemu.path = \"no-such-qemu\""
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration(noQEMU)),
                    says: "no QEMU", "no-such-qemu: not in PATH")
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.memory_mib = 32")),
                    says: "vm.memory_mib: 32 is not between")
                try expect(
                    scene.run(bundle: bundle, global: scene.configuration("vm.memory = 32")),
                    says: "vm.memory: unknown key")
                #if !Libvirt
                    try expect(
                        scene.run(bundle: bundle, global: scene.configuration("hypervisor = \"libvirt\"")),
                        says: "\"libvirt\" needs a Martlet that was built with the package trait Libvirt")
                #endif
                try expect(scene.run(bundle: bundle, global: ["--config", "/no/config"]), says: "/no/config")
            }
        }

        @Test func whoIsNotRoot() throws {
            try Scene.play { scene in
                let program = "\(scene.directory)/martlet"
                try Command.shell("cp \(Lab.binaries)/martlet{,-device,-vmm} \(scene.directory)/")
                let bundle = try scene.bundle(args: ["/bin/sh"])
                let outcome = try Command(
                    "setpriv",
                    [
                        "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
                        program,
                    ] + scene.runArguments(bundle: bundle)
                ).finish()
                expect(outcome, says: "root")
            }
        }
    }
}
