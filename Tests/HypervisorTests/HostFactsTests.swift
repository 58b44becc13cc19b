import FoundationEssentials
import Glibc
import Testing

@testable import Hypervisor

@Suite struct HostFactsTests {
    private static let capable = HostFacts(
        isRoot: true, kvm: .version(12), virtualization: "svm", hasVsock: true, vhostDevices: ["/dev/vhost-net"],
        controlGroups: .v2, qemu: .present(path: "/usr/bin/qemu", version: "7.2.22"),
        kernel: .present(path: "/k", bytes: 20_449_999), initramfs: .present(path: "/i", bytes: 7_000_000))

    private func facts(_ edit: (inout HostFacts) -> Void) -> HostFacts {
        var facts = Self.capable
        edit(&facts)
        return facts
    }

    private func accelerator(_ choice: DriverChoice) -> QEMUDriver.Accelerator? {
        guard case .qemu(let accelerator, _, _, _) = choice else { return nil }
        return accelerator
    }

    @Test func kvmIsTakenOnlyWhereTheProcessorHasIt() throws {
        #expect(
            try Self.capable.chooseDriver("auto", accelerator: "auto").description
                == "the built-in VMM: the processor has svm and /dev/kvm opens")
        #expect(try Self.capable.chooseDriver("kvm", accelerator: "auto") == .builtIn(reason: "as configured"))
        #expect(
            try Self.capable.chooseDriver("qemu", accelerator: "auto").description == "qemu with kvm: as configured")
        let paravirtual = facts { $0.virtualization = nil }
        let choice = try paravirtual.chooseDriver("auto", accelerator: "auto")
        #expect(accelerator(choice) == .tcg)
        #expect(
            choice.description
                == "qemu with tcg: software emulation, five to twenty times slower, as /dev/kvm opens, but the processor has neither vmx nor svm"
        )
        let without = facts { $0.kvm = .unusable("open /dev/kvm: No such file or directory") }
        #expect(try accelerator(without.chooseDriver("qemu", accelerator: "auto")) == .tcg)
        #expect(try accelerator(Self.capable.chooseDriver("qemu", accelerator: "tcg")) == .tcg)
    }

    @Test func mitigationsAreALineEach() throws {
        let directory = "/tmp/martlet-cpu-\(getpid())"
        for name in ["", "/smt", "/vulnerabilities"] { try #require(mkdir(directory + name, 0o755) == 0) }
        defer { try? FileManager.default.removeItem(atPath: directory) }
        func write(_ file: String, _ text: String) throws {
            try text.write(toFile: "\(directory)/\(file)", atomically: false, encoding: .utf8)
        }
        #expect(HostFacts.mitigations(directory) == [], "a kernel that says nothing")
        try write("smt/control", "on\n")
        try write("vulnerabilities/l1tf", "Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable\n")
        try write("vulnerabilities/mds", "Not affected\n")
        let lines = facts { $0.mitigations = HostFacts.mitigations(directory) }
            .lines(driver: "auto", accelerator: "auto").map(\.description)
        let found = lines.filter { $0.contains("smt: ") || $0.contains("l1tf: ") || $0.contains("mds: ") }
        #expect(
            found == [
                "warn     smt: on: two pods may share a core",
                "warn     l1tf: Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable",
                "ok       mds: Not affected",
            ])
        for (text, isOpen) in [("Vulnerable", true), ("Mitigation: Clear CPU buffers; SMT disabled", false)] {
            #expect(HostFacts.Mitigation(name: "mds", text: text).isOpen == isOpen)
        }
    }

    @Test func aChoiceIsOneReadableObject() throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let choices: [(DriverChoice, String)] = [
            (.builtIn(reason: "as configured"), #"{"driver":"kvm","reason":"as configured"}"#),
            (
                .qemu(accelerator: .tcg, executable: "/q", vhostNet: true, reason: "r"),
                #"{"accelerator":"tcg","driver":"qemu","executable":"/q","reason":"r","vhostNet":true}"#
            ),
            (
                .libvirt(uri: "u", accelerator: .tcg, executable: "/q", vhostNet: true, reason: "r"),
                #"{"accelerator":"tcg","driver":"libvirt","executable":"/q","reason":"r","uri":"u","vhostNet":true}"#
            ),
        ]
        for (choice, text) in choices {
            #expect(String(decoding: try encoder.encode(choice), as: UTF8.self) == text)
            #expect(try JSONDecoder().decode(DriverChoice.self, from: Data(text.utf8)) == choice)
        }
        #expect(throws: (any Error).self) {
            try JSONDecoder().decode(DriverChoice.self, from: Data(#"{"driver":"xen","reason":""}"#.utf8))
        }
    }

    @Test func whatTheHostCannotDoIsRefusedWithTheReason() {
        func refusal(_ facts: HostFacts, _ driver: String, _ accelerator: String) -> String {
            do { return "\(try facts.chooseDriver(driver, accelerator: accelerator))" } catch { return "\(error)" }
        }
        #expect(
            refusal(facts { $0.virtualization = nil }, "qemu", "kvm")
                == "qemu.accel is \"kvm\", but /dev/kvm opens, but the processor has neither vmx nor svm")
        #expect(
            refusal(facts { $0.virtualization = nil }, "kvm", "auto")
                == "hypervisor is \"kvm\", but /dev/kvm opens, but the processor has neither vmx nor svm")
        #expect(
            refusal(facts { $0.qemu = .absent("q: not in PATH") }, "qemu", "auto")
                == "no QEMU: q: not in PATH (Debian: apt install qemu-system-x86)")
        #expect(refusal(Self.capable, "xen", "auto") == "hypervisor: \"xen\" is none of auto, kvm, qemu, libvirt")
    }

    @Test func aLineForEachThing() {
        #expect(
            Self.capable.lines(driver: "auto", accelerator: "auto").map(\.description) == [
                "ok       user: root",
                "ok       kvm: /dev/kvm opens, API version 12",
                "ok       processor: has svm",
                "ok       vsock: /dev/vsock",
                "ok       vhost: /dev/vhost-net",
                "ok       cgroups: v2",
                "ok       qemu: /usr/bin/qemu, version 7.2.22",
                "ok       guest kernel: /k, 20.4 MB",
                "ok       guest initramfs: /i, 7.0 MB",
                "ok       driver: the built-in VMM: the processor has svm and /dev/kvm opens",
            ])
        let poor = facts {
            $0.isRoot = false
            $0.virtualization = nil
            $0.qemu = .absent("q: not in PATH")
            $0.kernel = .absent("guest kernel: no vmlinux in /g")
        }
        let verdicts = poor.lines(driver: "auto", accelerator: "auto")
        #expect(
            verdicts.filter { $0.verdict == .missing }.map(\.subject) == ["user", "qemu", "guest kernel", "driver"])
        #expect(verdicts.filter { $0.verdict == .warn }.map(\.subject) == ["processor"])
        #expect(verdicts.contains { $0.description == "missing  guest kernel: no vmlinux in /g" })
    }

    @Test func thisHostIsLookedAt() throws {
        let facts = HostFacts.gather(
            qemu: "/bin/false", kernel: .success("/etc/passwd"), initramfs: .failure(HypervisorError("none")))
        #expect(facts.isRoot == (geteuid() == 0))
        #expect(facts.controlGroups != .none)
        #expect((access("/dev/kvm", R_OK | W_OK) == 0) == (facts.kvm == .version(12)))
        guard case .absent(let reason) = facts.qemu else {
            Issue.record("/bin/false is taken for QEMU")
            return
        }
        #expect(reason.contains("exited with code 1"), "\(reason)")
        #expect(facts.kernel == .absent("guest kernel /etc/passwd: neither an ELF vmlinux nor a bzImage"))
        #expect(facts.initramfs == .absent("none"))
    }

    @Test(.enabled(if: HostFacts.findProgram("qemu-system-x86_64") != nil, "QEMU is not installed"))
    func qemuTellsItsVersion() {
        let facts = HostFacts.gather(
            qemu: "qemu-system-x86_64", kernel: .failure(HypervisorError("-")),
            initramfs: .failure(HypervisorError("-")))
        guard case .present(let path, let version?) = facts.qemu else {
            Issue.record("\(facts.qemu)")
            return
        }
        #expect(path.hasPrefix("/") && version.first?.isNumber == true)
    }

    @Test func programsAreFoundByPathOrName() {
        #expect(HostFacts.findProgram("/bin/sh") == HostFacts.findProgram("sh"))
        #expect(HostFacts.findProgram("/etc/passwd") == nil)
        #expect(HostFacts.findProgram("/bin") == nil)
        #expect(HostFacts.findProgram("no-such-program") == nil)
    }
}
