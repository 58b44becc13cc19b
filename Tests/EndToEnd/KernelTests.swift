import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// What ordinary images need of a kernel, used once each inside a container.
    @Suite struct KernelTests {
        private func runFeatures(_ scene: Scene, _ script: String, guest: String = Lab.guest) throws -> Outcome {
            let bundle = try scene.bundle(script: script) { spec in
                let all = Capabilities.everything
                spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                spec.process?.noNewPrivileges = false
                spec.linux?.readonlyPaths = []
                spec.linux?.maskedPaths = []
                for index in spec.mounts.indices { spec.mounts[index].options.removeAll { $0 == "ro" } }
                spec.mounts.removeAll { $0.destination == "/proc" }
                spec.mounts.insert(Mount(destination: "/proc", type: "proc", source: "proc"), at: 0)
                // Devices that only some containers may use.
                spec.linux?.resources = .init()
                spec.linux?.resources?.devices = [.init(allow: true, access: "rwm")]
            }
            try Program.install("features", in: bundle)
            try Command.shell("cat \(Lab.repository)/configs/kernel/*.config > \(bundle)/rootfs/wanted")
            return try scene.start(
                bundle: bundle, global: ["--debug"], environment: Lab.environment(guest: guest)
            ).finish(within: .seconds(120))
        }

        @Test func theKernelHasWhatIsWantedAndEachFeatureWorks() throws {
            try Scene.play { scene in
                let outcome = try runFeatures(scene, "features config /wanted && features all")
                #expect(outcome.code == 0, "\(outcome.text)\n\(outcome.errorText)")
                #expect(!outcome.text.contains("FAIL"), "\(outcome.text)")
                #expect(outcome.lines.filter { $0.hasPrefix("ok ") }.count > 30, "\(outcome.text)")
            }
        }

        static let stockGuest = "\(Lab.repository)/.build/guest/stock"
        static var hasStockGuest: Bool { access("\(stockGuest)/initramfs", R_OK) == 0 }

        @Test(.enabled(if: hasStockGuest, "no guest with the stock kernel (make guest-stock)"))
        func theDistributionsKernelRunsContainersToo() throws {
            try Scene.play { scene in
                let outcome = try runFeatures(scene, "uname -r; echo hello; exit 3", guest: Self.stockGuest)
                #expect(outcome.code == 3, "\(outcome.errorText)")
                #expect(outcome.lines.first?.contains("cloud") == true, "\(outcome.text)")
                #expect(outcome.lines.last == "hello")
                // Its console may be a module, which is not there yet when the agent begins.
                #expect(outcome.errorText.contains("guest: martlet-agent ready"), "\(outcome.errorText)")
            }
        }
    }
}

extension Capabilities {
    /// The names of all capabilities of Linux 6.1.
    static let everything = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
        "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
        "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    ].map { "CAP_\($0)" }
}
