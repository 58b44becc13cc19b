import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing
import VMMControl

@testable import Machine

/// The real `martlet-vmm`, as the pod's server sees it.
private final class MachineProcess {
    static let executable = program("martlet-vmm")
    static let isPossible: Bool = {
        let possible = TinyKVM.isReady && geteuid() == 0 && access(executable, X_OK) == 0
        if !possible { print("martlet-vmm is not tested: it needs root, /dev/kvm and \(executable)") }
        return possible
    }()

    private static func program(_ name: String) -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        let path = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // The test runner is beside what is tested, or is the toolchain's and got the bundle as an argument.
        let found = ([path] + CommandLine.arguments).map {
            $0.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/" + name
        }
        return found.first { access($0, X_OK) == 0 } ?? name
    }

    let child: ChildProcess
    let client: ControlClient
    let notices: Notices

    final class Notices: Sendable {
        private let list = Mutex<[ControlEvent]>([])
        func add(_ notice: ControlEvent) { list.withLock { $0.append(notice) } }
        var all: [ControlEvent] { list.withLock { $0 } }

        /// How the machine ended; nil when it did not within `limit`.
        func end(within limit: Duration) -> (MachineStop, String)? {
            let deadline = ContinuousClock.now + limit
            while ContinuousClock.now < deadline {
                for case .ended(let end, let reason) in all { return (end, reason) }
                usleep(5000)
            }
            return nil
        }
    }

    init(tracedTo trace: String? = nil) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        var words = [Self.executable]
        if let trace { words = ["/usr/bin/strace", "-f", "-e", "trace=file,process", "-o", trace] + words }
        child = try ChildProcess(
            "martlet-vmm",
            .init(
                executable: words[0], arguments: Array(words.dropFirst()), descriptors: [-1, 2, 2, theirs.raw],
                diesWithParent: true))
        let notices = Notices()
        self.notices = notices
        client = ControlClient(control: ours) { notices.add($0) }
    }

    deinit {
        child.signal(SIGKILL)
        _ = child.waitForEnd(timeout: .seconds(5))
    }

    func make(mebibytes: UInt64 = 64, processors: UInt32 = 1) throws {
        let kvm = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
        let memory = try OwnedDescriptor.memory("tiny", size: Int64(mebibytes) << 20)
        try client.makeMachine(
            kvm: kvm.raw, memory: memory.raw, bytes: mebibytes << 20, vcpus: processors
        ).wait()
    }

    func boot(_ image: [UInt8]) throws {
        let file = try OwnedDescriptor.memory("kernel", size: 0)
        #expect(write(file.raw, image, image.count) == image.count)
        try client.boot(kernel: file.raw, initramfs: nil, commandLine: "").wait()
    }

    func status(_ field: String) -> String? {
        guard let text = try? readText("/proc/\(child.pid)/status") else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") }
        return line.map { $0.dropFirst(field.count + 1).split(separator: "\t").joined(separator: " ") }
    }
}

@Suite(.serialized, .enabled(if: MachineProcess.isPossible, "needs root, /dev/kvm and martlet-vmm"))
struct MachineProcessTests {
    @Test func eachEndHasItsReason() throws {
        let guests: [([UInt8], MachineStop, String)] = [
            (TinyGuest.reset, .reset, "the guest reset the machine"),
            (TinyGuest.tripleFault, .tripleFault, "processor 0 shut down after a triple fault"),
            (TinyGuest.lost, .unhandled, "processor 0: KVM could not go on"),
        ]
        for (code, end, reason) in guests {
            let machine = try MachineProcess()
            try machine.make()
            try machine.boot(TinyGuest.elf(code))
            let told = try #require(machine.notices.end(within: .seconds(2)), "\(reason)")
            #expect(told.0 == end)
            #expect(told.1.hasPrefix(reason), "\(told.1)")
        }
    }

    @Test func whatIsAskedOutOfOrderIsRefused() throws {
        let machine = try MachineProcess()
        func refusal(_ body: () throws -> Void) -> String {
            do { try body() } catch { return "\(error)" }
            return "done"
        }
        #expect(refusal { try machine.boot(TinyGuest.elf(TinyGuest.reset)) }.contains("no machine yet"))
        #expect(refusal { try machine.client.addEntropy().wait() }.contains("no machine yet"))
        #expect(refusal { try machine.make(mebibytes: 32) }.contains("64 MiB"))
        #expect(refusal { try machine.make(processors: 33) }.contains("33 processors"))
        try machine.make()
        #expect(refusal { try machine.make() }.contains("already"))
        #expect(refusal { try machine.client.pressPowerButton() }.contains("does not run yet"))
        #expect(refusal { try machine.boot(Array("#!/bin/sh".utf8)) }.contains("neither"))
        #expect(refusal { try machine.boot(Array(TinyGuest.elf(TinyGuest.reset).prefix(70))) }.contains("guest kernel"))
        for _ in 0..<18 { try machine.client.addEntropy().wait() }
        #expect(refusal { try machine.client.addEntropy().wait() }.contains("more than 18"))
        try machine.boot(TinyGuest.elf(TinyGuest.reset))
        #expect(refusal { try machine.boot(TinyGuest.elf(TinyGuest.reset)) }.contains("runs"))
        #expect(machine.notices.end(within: .seconds(2))?.0 == .reset)
    }

    @Test func itRunsAsNobodyInAnEmptyRoot() throws {
        let machine = try MachineProcess()
        try machine.make()
        #expect(machine.status("CapPrm") == "0000000000000000")
        #expect(machine.status("CapBnd") == "0000000000000000")
        #expect(machine.status("Uid") == "65534 65534 65534 65534")
        #expect(machine.status("NoNewPrivs") == "1")
        var names: [String] = []
        let root = try #require(opendir("/proc/\(machine.child.pid)/root/"))
        while let entry = readdir(root) {
            names.append(
                withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        closedir(root)
        #expect(names.sorted() == [".", ".."])
    }

    @Test(.enabled(if: access("/usr/bin/strace", X_OK) == 0, "needs strace"))
    func itOpensNothing() throws {
        var template = Array("/tmp/martlet-trace.XXXXXX".utf8CString)
        let file = mkstemp(&template)
        close(file)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unlink(path) }
        do {
            let machine = try MachineProcess(tracedTo: path)
            try addDevices(machine)
            try machine.boot(TinyGuest.elf(TinyGuest.reset))
            #expect(machine.notices.end(within: .seconds(10))?.0 == .reset)
            machine.child.signal(SIGTERM)
        }
        let lines = try readText(path).split(separator: "\n")
        let start = try #require(lines.firstIndex { $0.contains("chroot(") }, "the trace saw no start")
        // Threads were made after it, so the trace goes on.
        #expect(lines[start...].contains { $0.contains("clone") })
        let names = ["open(", "openat(", "openat2(", "creat(", "execve(", "mknod", "socket("]
        for line in lines[(start + 1)...] { #expect(!names.contains { line.contains(" " + $0) }, "\(line)") }
    }

    /// Every device that it serves itself.
    private func addDevices(_ machine: MachineProcess) throws {
        try machine.make(processors: 2)
        let (_, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        try machine.client.addConsole(output: theirs.raw, kind: .virtio).wait()
        try machine.client.addConsole(output: theirs.raw, kind: .serial).wait()
        try machine.client.addEntropy().wait()
        try machine.client.addVsock(guestCID: 3).wait()
        for name in ["one", "two"] {
            let disk = try OwnedDescriptor.memory("disk", size: 1 << 20)
            try machine.client.addBlock(file: disk.raw, readOnly: name == "two", id: name).wait()
        }
    }

    /// In `make test-all` for a minute.
    @Test func aStormOfAccessesChangesNothing() throws {
        let seconds = getenv("MARTLET_TEST_ALL") == nil ? 8 : 60
        let machine = try MachineProcess()
        try addDevices(machine)
        try machine.boot(TinyGuest.elf(TinyGuest.storm))
        func memory() throws -> Int {
            try #require(machine.status("RssAnon")?.split(separator: " ").first.flatMap { Int($0) })
        }
        sleep(2)
        let before = try memory()
        for _ in 0..<seconds {
            sleep(1)
            #expect(throws: DeviceError.notReady) {
                let (_, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
                try machine.client.connect(port: 1, stream: theirs.raw, deadline: .seconds(1))
            }
        }
        let after = try memory()
        #expect(after - before <= 1024, "from \(before) to \(after) KiB")
        #expect(machine.child.ended == nil)
        #expect(machine.notices.all.isEmpty, "\(machine.notices.all)")
    }
}
