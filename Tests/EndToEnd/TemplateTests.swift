import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Pods that start from a template. The built-in VMM alone has templates.
    @Suite struct TemplateTests {
        private static let needsKVM: Comment =
            "the driver under test is not the built-in VMM, which alone has templates"

        /// What tells two guests from one template apart, and whether the clock is right.
        private static let script = """
            cat /proc/sys/kernel/random/boot_id; head -c 64 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid
            date +%s; hostname; cut -d' ' -f1 /proc/uptime; sleep 0.2; echo end
            """

        private func templates(
            _ scene: Scene, vcpus: Int = 1, _ settings: String = ""
        ) throws -> (options: [String], directory: String) {
            let directory = "\(scene.directory)/templates"
            return (
                try scene.configuration("vm.vcpus = \(vcpus)\n[template]\ndirectory = \"\(directory)\"\n\(settings)"),
                directory
            )
        }

        private func martlet(_ options: [String], _ arguments: String...) throws -> Outcome {
            try Command(Lab.martlet, options + arguments, environment: Lab.environment)
                .finish(within: .seconds(120))
        }

        private func names(_ directory: String) -> [String] {
            Leftovers.list(directory).filter { !$0.hasPrefix(".") }
        }

        /// Whether a run's debug log says that its guest did not boot: a restored machine has no console of a boot.
        private func booted(_ outcome: Outcome) -> Bool { outcome.errorText.contains("martlet-agent ready") }

        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func podsFromOneTemplateAreNotAlike() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene, vcpus: 2)
                let made = try martlet(options, "template", "create")
                #expect(made.code == 0, "\(made.errorText)")
                #expect(names(directory) == made.lines)
                let listed = try martlet(options, "template", "list")
                #expect(listed.lines.count == 2 && listed.text.contains(made.lines.first ?? "-"), "\(listed.text)")
                let checked = try martlet(options, "template", "check")
                #expect(checked.lines == made.lines.map { "\($0): good" }, "\(checked.errorText)")

                var outcomes: [Outcome] = []
                for number in 0..<2 {
                    let bundle = try scene.bundle(script: Self.script) { $0.hostname = "host-\(number)" }
                    let outcome = try scene.run(bundle: bundle, global: options + ["--debug"])
                    #expect(outcome.code == 0, "\(outcome.errorText)")
                    #expect(!booted(outcome), "the pod did not start from the template")
                    try #require(outcome.lines.count == 7, "\(outcome.text)")
                    #expect(outcome.lines[4] == "host-\(number)")
                    #expect(abs((Int(outcome.lines[3]) ?? 0) - time(nil)) <= 2 * Lab.patience)
                    outcomes.append(outcome)
                }
                for line in 0..<3 { #expect(outcomes[0].lines[line] != outcomes[1].lines[line], "line \(line)") }

                #expect(try martlet(options, "template", "rm", "--all").code == 0)
                #expect(Leftovers.list(directory).isEmpty)
                let missing = try martlet(options, "template", "rm", "nothing")
                #expect(missing.code == 1 && missing.errorText.contains("template nothing in \(directory)"))
            }
        }

        /// One of another version, one that is cut off, and one without memory: each pod boots instead, and says why.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aDamagedTemplateIsNotUsed() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene)
                let made = try martlet(options, "template", "create")
                try #require(made.code == 0, "\(made.errorText)")
                let template = "\(directory)/\(made.lines[0])"
                let state = try readBytes("\(template)/state")
                func run() throws -> Outcome {
                    try scene.run(bundle: scene.bundle(script: "echo in"), global: options + ["--debug"])
                }
                let damages: [(Substring, () throws -> Void)] = [
                    (
                        "version 99, not",
                        { try scene.write("\(template)/state", bytes: state[..<8] + [99] + state[9...]) }
                    ),
                    ("is cut off", { try scene.write("\(template)/state", bytes: state.prefix(5000)) }),
                    ("No such file", { unlink("\(template)/memory") }),
                ]
                for (reason, damage) in damages {
                    try damage()
                    let outcome = try run()
                    #expect(outcome.code == 0 && outcome.text == "in\n", "\(outcome.errorText)")
                    #expect(booted(outcome))
                    #expect(
                        outcome.errorText.contains(template) && outcome.errorText.contains(reason),
                        "\(outcome.errorText)")
                    #expect(try martlet(options, "template", "check").code == 1)
                }
            }
        }

        /// The first pod boots and has the template made; a later one starts from it.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aTemplateIsMadeInTheBackground() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene, "mode = \"auto\"")
                func run() throws -> Outcome {
                    try scene.run(bundle: scene.bundle(script: "echo in"), global: options + ["--debug"])
                }
                #expect(booted(try run()))
                let limit = ContinuousClock.now + .seconds(60 * Lab.patience)
                while names(directory).isEmpty, ContinuousClock.now < limit { usleep(100_000) }
                #expect(names(directory).count == 1)
                let second = try run()
                #expect(second.code == 0 && second.text == "in\n", "\(second.errorText)")
                #expect(!booted(second))
            }
        }

        /// A maker that is killed leaves what the next one removes.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aKilledMakerLeavesNothing() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene)
                for delay in [0.3, 1.0, 2.0, 3.0, 4.0] {
                    let maker = try Command(
                        Lab.martlet, options + ["template", "create"], environment: Lab.environment)
                    usleep(UInt32(delay * 1e6))
                    maker.child.signal(SIGKILL)
                    _ = try maker.finish(within: .seconds(10))
                    #expect(names(directory).count <= 1)
                }
                let made = try martlet(options, "template", "create")
                #expect(made.code == 0, "\(made.errorText)")
                #expect(Leftovers.list(directory) == made.lines)
            }
        }

        /// A template that the disk has no room for leaves nothing, and says why.
        @Test(.enabled(if: Lab.driver == .kvm, needsKVM))
        func aFullDiskLeavesNoHalfTemplate() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene)
                try Command.shell("mkdir \(directory); mount -t tmpfs -o size=4m templates \(directory)")
                defer { umount2(directory, Int32(MNT_DETACH)) }
                let made = try martlet(options, "template", "create")
                #expect(made.code == 1 && made.errorText.contains("No space left"), "\(made.errorText)")
                #expect(Leftovers.list(directory).isEmpty)
                let outcome = try scene.run(bundle: scene.bundle(script: "echo in"), global: options)
                #expect(outcome.code == 0 && outcome.text == "in\n", "\(outcome.errorText)")
            }
        }

        @Test(.enabled(if: Lab.driver == .qemu, "QEMU alone refuses templates"))
        func qemuRefusesTemplates() throws {
            try Scene.play { scene in
                let (options, directory) = try templates(scene, "mode = \"auto\"")
                let made = try martlet(options, "template", "create")
                #expect(made.code == 1 && made.errorText.contains("a template with qemu"), "\(made.errorText)")
                let outcome = try scene.run(bundle: scene.bundle(script: "echo in"), global: options + ["--debug"])
                #expect(outcome.code == 0 && outcome.text == "in\n", "\(outcome.errorText)")
                #expect(outcome.errorText.contains("templates need the built-in VMM"))
                #expect(names(directory).isEmpty)
            }
        }

        private func readBytes(_ path: String) throws -> [UInt8] {
            let file = try OwnedDescriptor.open(path, O_RDONLY)
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            let count = read(file.raw, &bytes, bytes.count)
            guard count >= 0 else { throw LabError("read \(path): errno \(errno)") }
            return Array(bytes.prefix(count))
        }
    }
}
