import FoundationEssentials
import Glibc
import Testing

@testable import Sandbox

/// A configuration directory that is gone after the test.
private final class Files {
    let path: String

    init(_ files: [String: String]) throws {
        var template = Array("/tmp/martlet-configuration.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        #expect(mkdir("\(path)/martlet.d", 0o755) == 0)
        for (name, text) in files {
            let file = try #require(fopen("\(path)/\(name)", "w"))
            #expect(fputs(text, file) >= 0)
            fclose(file)
            names.append(name)
        }
    }

    private var names: [String] = []

    func load() throws -> Configuration { try Configuration.load(file: "\(path)/martlet.toml") }

    deinit {
        for name in names { unlink("\(path)/\(name)") }
        rmdir("\(path)/martlet.d")
        rmdir(path)
    }
}

private func message(_ text: String, dropIns: [String: String] = [:]) throws -> String {
    let files = try Files(["martlet.toml": text].merging(dropIns) { $1 })
    do {
        _ = try files.load()
        return "loaded"
    } catch {
        return "\(error)".replacing(files.path + "/", with: "")
    }
}

@Suite struct ConfigurationTests {
    @Test func theDocumentedFileSaysTheDefaults() throws {
        let here = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        #expect(try Configuration.load(file: "/\(here)/configs/martlet.toml") == Configuration())
    }

    @Test func everyKeyIsRead() throws {
        let files = try Files([
            "martlet.toml": """
            hypervisor = "qemu"
            vm = { vcpus = 2, memory_mib = 1024, kernel = "/k", initramfs = "/i", kernel_arguments = ["a=1", "b"] }
            [qemu]
            path = "/opt/qemu"
            accel = "tcg"
            vhost_net = true
            [agent]
            start_timeout_s = 1
            request_timeout_s = 2
            heartbeat_interval_ms = 60
            heartbeat_timeout_ms = 200
            [volumes]
            copy_limit_mib = 3
            [network]
            source_filter = true
            [memory]
            reporting = false
            reclaim = false
            idle_s = 7
            floor_mib = 0
            [sockets]
            forward = false
            [paths]
            root = "/r"
            [spec]
            ineffective_limits = "warn"
            labels = "refuse"
            host_devices = "warn"
            host_namespaces = "warn"
            """
        ])
        var expected = Configuration()
        expected.hypervisor = .qemu
        expected.vm = .init(vcpus: 2, memoryMiB: 1024, kernel: "/k", initramfs: "/i", kernelArguments: ["a=1", "b"])
        expected.qemu = .init(path: "/opt/qemu", accelerator: .tcg, vhostNet: true)
        expected.agent = .init(
            startTimeout: .seconds(1), requestTimeout: .seconds(2), heartbeatInterval: .milliseconds(60),
            heartbeatTimeout: .milliseconds(200))
        expected.volumes.copyLimit = 3 << 20
        expected.network.sourceFilter = true
        expected.memory = .init(reporting: false, reclaim: false, idle: .seconds(7), floorMiB: 0)
        expected.sockets.forward = false
        expected.paths = .init(root: "/r")
        expected.spec.ineffectiveLimits = .warn
        expected.spec.labels = .refuse
        expected.spec.hostDevices = .warn
        expected.spec.hostNamespaces = .warn
        #expect(try files.load() == expected)
    }

    @Test func dropInsWinKeyByKeyInTheOrderOfTheirNames() throws {
        let files = try Files([
            "martlet.toml": "[vm]\nvcpus = 2\nmemory_mib = 200\n[qemu]\npath = \"/a\"",
            "martlet.d/10-a.toml": "vm.memory_mib = 300\nvm.vcpus = 3",
            "martlet.d/20-b.toml": "[vm]\nvcpus = 4",
            "martlet.d/.hidden.toml": "x = 1",
            "martlet.d/readme.txt": "x = 1",
        ])
        let configuration = try files.load()
        #expect(configuration.vm.vcpus == 4)
        #expect(configuration.vm.memoryMiB == 300)
        #expect(configuration.qemu.path == "/a")
    }

    /// The copy says the same but for what it overrides, whatever the files' names.
    @Test func aCopyOverridesTheFiles() throws {
        let files = try Files([
            "martlet.toml": "vm.vcpus = 2\nvm.memory_mib = 200",
            "martlet.d/zz.toml": "vm.vcpus = 4\nqemu.path = \"/a\"",
        ])
        let copy = try Files(["empty": ""])
        defer { _ = try? FileManager.default.removeItem(atPath: "\(copy.path)/copy") }
        var expected = try files.load()
        expected.vm.vcpus = 3
        let file = try Configuration.copy(
            file: "\(files.path)/martlet.toml", to: "\(copy.path)/copy", with: "vm.vcpus = 3")
        #expect(try Configuration.load(file: file) == expected)
        #expect(expected.vm.memoryMiB == 200 && expected.qemu.path == "/a")
        #expect(throws: ConfigurationError.self) {
            try Configuration.copy(file: "\(files.path)/none.toml", to: "\(copy.path)/copy", with: "")
        }
    }

    @Test func withoutTheStandardFileTheDefaultsHold() throws {
        try #require(access(Configuration.standardFile, F_OK) != 0, "this machine has a configuration file")
        #expect(try Configuration.load() == Configuration())
    }

    @Test func aFileThatIsNamedMustExist() {
        #expect(throws: ConfigurationError(subject: "/nonexistent/m.toml", reason: "No such file or directory")) {
            try Configuration.load(file: "/nonexistent/m.toml")
        }
        #expect(throws: ConfigurationError(subject: "/tmp", reason: "not a regular file")) {
            try Configuration.load(file: "/tmp")
        }
    }

    @Test(arguments: [
        ("vcpus = 1", "martlet.toml: vcpus: unknown key"),
        ("[vm]\ncpus = 1", "martlet.toml: vm.cpus: unknown key"),
        ("[vn]", "martlet.toml: vn: unknown table"),
        ("[vn]\nvcpus = 1", "martlet.toml: vn: unknown table"),
        ("[vm.vcpus]", "martlet.toml: vm.vcpus: is not a table"),
        ("vm = 1", "martlet.toml: vm: unknown key"),
        ("[vm]\nvcpus = \"1\"", "martlet.toml: vm.vcpus: expected a whole number, found a string"),
        ("[vm]\nvcpus = 1.5", "martlet.toml: vm.vcpus: expected a whole number, found a number with a fraction"),
        ("[vm]\nvcpus = 0", "martlet.toml: vm.vcpus: 0 is not between 1 and 32"),
        ("[vm]\nmemory_mib = 32", "martlet.toml: vm.memory_mib: 32 is not between 96 and 1048576 MiB"),
        ("[vm]\nkernel = \"vmlinux\"", "martlet.toml: vm.kernel: \"vmlinux\" is not an absolute path"),
        (
            "[vm]\nkernel_arguments = \"a\"",
            "martlet.toml: vm.kernel_arguments: expected a list of strings, found a string"
        ),
        (
            "[vm]\nkernel_arguments = [1]",
            "martlet.toml: vm.kernel_arguments[0]: expected a string, found a whole number"
        ),
        ("[vm]\nkernel_arguments = [\"a b\"]", "martlet.toml: vm.kernel_arguments[0]: \"a b\" is not one word"),
        ("vm.debug_console = 1", "martlet.toml: vm.debug_console: expected true or false, found a whole number"),
        (
            "hypervisor = \"xen\"",
            "martlet.toml: hypervisor: \"xen\" is none of \"auto\", \"kvm\", \"qemu\", \"libvirt\""
        ),
        ("hypervisor = true", "martlet.toml: hypervisor: expected a string, found true or false"),
        ("hypervisor = 1979-05-27", "martlet.toml: hypervisor: expected a string, found a date"),
        ("qemu.accel = \"hvf\"", "martlet.toml: qemu.accel: \"hvf\" is none of \"auto\", \"kvm\", \"tcg\""),
        ("qemu.path = \"\"", "martlet.toml: qemu.path: must not be empty"),
        ("agent.start_timeout_s = 0", "martlet.toml: agent.start_timeout_s: 0 is not between 1 and 3600 s"),
        (
            "agent.heartbeat_timeout_ms = 400",
            "martlet.toml: agent.heartbeat_timeout_ms: must be more than agent.heartbeat_interval_ms"
        ),
        (
            "jail.first_user = 2147483000\njail.users = 1000",
            "martlet.toml: jail.users: 1000 users from 2147483000 on end above 2147483647"
        ),
        ("paths.root = \"x\"", "martlet.toml: paths.root: \"x\" is not an absolute path"),
        ("paths.root = \"\"", "martlet.toml: paths.root: must not be empty"),
    ])
    func aBadSettingIsNamedWithItsFile(_ text: String, _ expected: String) throws {
        #expect(try message(text) == expected)
    }

    @Test func textThatIsNotTOMLHasALineAndAColumn() throws {
        let text = try message("[vm]\nvcpus = = 1\n")
        #expect(text.hasPrefix("martlet.toml: line 2, column 9: "), "\(text)")
        #expect(!text.contains("\n"))
    }

    @Test func libvirtNeedsThePackageTrait() throws {
        #if Libvirt
            #expect(try message("hypervisor = \"libvirt\"\nlibvirt.uri = \"qemu:///session\"") == "loaded")
        #else
            #expect(
                try message("hypervisor = \"libvirt\"")
                    == "martlet.toml: hypervisor: \"libvirt\" needs a Martlet that was built with the package trait Libvirt"
            )
        #endif
    }

    /// The parser would end the process (an assertion of toml++).
    @Test(arguments: ["[\n", "[ #\n]", "[[ \n", "\u{feff}[=]", "x = 1\n\t[", "[\r\na]"])
    func aTableWithoutANameHasALine(header: String) throws {
        let text = try message(header)
        let line = header.hasPrefix("x") ? 2 : 1
        #expect(text == "martlet.toml: line \(line): the table has no name that begins in this line", "\(text)")
    }

    @Test func tablesMayBeNamedInAnyWay() throws {
        for header in ["[vm]", " [ vm ]", "[\"vm\"]", "['vm']"] {
            #expect(try message("\(header)\nvcpus = 0") == "martlet.toml: vm.vcpus: 0 is not between 1 and 32")
        }
    }

    @Test func aDropInsFaultNamesTheDropIn() throws {
        #expect(
            try message("", dropIns: ["martlet.d/a.toml": "vm.x = 1"]) == "martlet.d/a.toml: vm.x: unknown key")
        #expect(
            try message("vm.vcpus = 1", dropIns: ["martlet.d/a.toml": "vm = 1"])
                == "martlet.d/a.toml: vm: a table in one file and a value in another")
    }
}

@Suite struct GuestImageTests {
    @Test func theDirectoriesInTheirOrder() {
        #expect(
            GuestImage.directories(executable: "/opt/martlet/bin/martlet", environment: nil) == [
                "/opt/martlet/share/martlet/guest", "/usr/share/martlet/guest", "/usr/local/share/martlet/guest",
            ])
        #expect(
            GuestImage.directories(executable: "/src/.build/x86_64/release/martlet", environment: "")
                .contains("/src/.build/guest/own"))
        #expect(GuestImage.directories(executable: "/bin/martlet", environment: "/g") == ["/g"])
        #expect(GuestImage.directories(executable: "/martlet", environment: nil).first == "//share/martlet/guest")
    }

    @Test func whatIsConfiguredMustExistAndTheRestIsFound() throws {
        var template = Array("/tmp/martlet-guest.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer {
            for name in ["bzImage", "initramfs", "root.erofs"] { unlink("\(path)/\(name)") }
            rmdir(path)
        }
        func locate(_ vm: Configuration.VM) -> String {
            do {
                let image = try GuestImage.locate(vm, executable: "/none/martlet", environment: path)
                return "\(image.kernel) \(image.initramfs)" + (image.rootImage.map { " \($0)" } ?? "")
            } catch {
                return "\(error)"
            }
        }
        #expect(locate(.init()).hasPrefix("guest kernel: no vmlinux or bzImage or vmlinuz in \(path): "))
        close(creat("\(path)/bzImage", 0o644))
        #expect(locate(.init()).hasPrefix("guest initramfs: no initramfs.cpio or initramfs in \(path): "))
        close(creat("\(path)/initramfs", 0o644))
        #expect(locate(.init()) == "\(path)/bzImage \(path)/initramfs")
        close(creat("\(path)/root.erofs", 0o644))
        #expect(locate(.init()) == "\(path)/bzImage \(path)/initramfs \(path)/root.erofs")
        // It goes with the kernel and the agent beside it only.
        #expect(locate(.init(kernel: "\(path)/bzImage")) == "\(path)/bzImage \(path)/initramfs")
        #expect(locate(.init(initramfs: "\(path)/initramfs")) == "\(path)/bzImage \(path)/initramfs")
        #expect(locate(.init(kernel: "/none")) == "guest kernel /none (vm.kernel): No such file or directory")
    }
}
