import FoundationEssentials
import Glibc
import Hypervisor
import Logging
import OCISpec
import Testing

@testable import Sandbox

/// What engines say in words of their own.
@Suite struct EngineTests {
    /// qemu.vhost_net reaches the driver.
    @Test(arguments: [true, false]) func qemuIsMadeAsConfigured(_ vhostNet: Bool) throws {
        let choice = try JSONDecoder().decode(
            DriverChoice.self,
            from: Data(
                """
                {"driver": "qemu", "accelerator": "kvm", "executable": "/opt/qemu", "vhostNet": \(vhostNet), "reason": ""}
                """.utf8))
        let driver = try #require(choice.qemuDriver(logger: Logger(label: "test")))
        #expect(driver.executable == "/opt/qemu" && driver.accelerator == .kvm)
        #expect(driver.hasVhostNet == vhostNet)
    }

    @Test func streamsAreNamedAsContainerdNamesThem() throws {
        #expect(try StreamTarget("", field: "stdin") == nil)
        #expect(try StreamTarget("/run/f", field: "stdin") == .path("/run/f"))
        #expect(try StreamTarget("fifo:///run/f", field: "stdin") == .path("/run/f"))
        #expect(try StreamTarget("fd:7", field: "stdin") == .path("fd:7"))
        #expect(try StreamTarget("file:///var/log/a%20b", field: "stdout") == .file("/var/log/a b"))
        guard case .program(let program)? = try StreamTarget("binary:///bin/log?id=a+b&x", field: "stdout") else {
            Issue.record("no program")
            return
        }
        #expect(program.path == "/bin/log" && program.arguments == ["id", "a b", "x"])
        for wrong in ["http://x/y", "file://relative", "binary://relative"] {
            #expect(throws: SandboxError.self, "\(wrong)") { try StreamTarget(wrong, field: "stdout") }
        }
    }

    @Test func mountOptionsAreFlagsOrTheFileSystems() {
        let options = FlagsAndData(["ro", "nosuid", "rw", "lowerdir=/a:/b", "rbind", "xino=off"])
        #expect(options.flags == 2 | 4096 | 16384)
        #expect(options.data == "lowerdir=/a:/b,xino=off")
    }

    @Test func manyLayersAreNamedFromWhereTheyMeet() throws {
        let layers = (1...9).map { "/var/lib/snapshots/\($0)/fs" }.joined(separator: ":")
        let short = try #require(OverlayLayers("workdir=/w,lowerdir=\(layers)"))
        #expect(short.directory == "/var/lib/snapshots")
        #expect(short.data == "workdir=/w,lowerdir=" + (1...9).map { "\($0)/fs" }.joined(separator: ":"))
        #expect(OverlayLayers("upperdir=/u") == nil)
    }

    @Test func annotationsChangeOnlyWhatIsAllowed() throws {
        let directory = "/tmp/martlet-annotations-\(getpid())"
        mkdir(directory, 0o755)
        defer {
            unlink("\(directory)/m.toml")
            rmdir(directory)
        }
        let file = "\(directory)/m.toml"
        try Data(#"engine.annotations = ["vm.memory_mib", "vm.huge_pages"]"#.utf8).write(to: URL(filePath: file))
        let changed = try Configuration.load(
            file: file,
            annotations: ["io.martlet.vm.memory_mib": "1024", "io.martlet.vm.huge_pages": "false", "other": "x"])
        #expect(changed.vm.memoryMiB == 1024 && !changed.vm.hugePages)
        let refused = #expect(throws: ConfigurationError.self) {
            try Configuration.load(file: file, annotations: ["io.martlet.vm.vcpus": "4"])
        }
        #expect(refused?.description.contains("annotation io.martlet.vm.vcpus: not allowed") == true)
        let wrong = #expect(throws: ConfigurationError.self) {
            try Configuration.load(file: file, annotations: ["io.martlet.vm.memory_mib": "much"])
        }
        #expect(wrong?.description.contains("annotation io.martlet.vm.memory_mib: vm.memory_mib") == true)
        let refusals = [
            "2Gi": "expected a whole number", "": "expected a whole number", "1e9": "expected a whole number",
            "2048.0": "expected a whole number", " 2048": "expected a whole number", "0": "0 is not between",
            "-1": "-1 is not between", "\(Int.max)": "\(Int.max) is not between", "\(Int.min)": "is not between",
            "9223372036854775808": "expected a whole number",
        ]
        for (text, reason) in refusals {
            let refused = #expect(throws: ConfigurationError.self, "\(text)") {
                try Configuration.load(file: file, annotations: ["io.martlet.vm.memory_mib": text])
            }
            let message = refused?.description ?? ""
            #expect(message.hasPrefix("annotation io.martlet.vm.memory_mib: vm.memory_mib: "), "\(message)")
            #expect(message.contains(reason), "\(text): \(message)")
        }
    }

    @Test func podsAreListedAndWhatTheDeadLeftIsCleared() throws {
        let root = "/tmp/martlet-pods-\(getpid())"
        defer { try? FileManager.default.removeItem(atPath: root) }
        let alive = StateDirectory(root: "\(root)/containerd-k8s.io", id: "alive")
        let lock = try alive.create()
        try alive.write(.init(id: "alive", bundle: "/b"))
        let dead = StateDirectory(root: root, id: "dead")
        _ = try dead.create()
        withExtendedLifetime(lock) {
            let pods = PodList.all(root: root)
            #expect(pods.map(\.id) == ["dead", "alive"])
            #expect(pods.map(\.isRunning) == [false, true])
            #expect(pods.map(\.namespace) == ["", "k8s.io"])
            #expect(PodList.clean(root: root).map(\.id) == ["dead"])
            #expect(PodList.all(root: root).map(\.id) == ["alive"])
        }
        alive.sweep()
    }
}
