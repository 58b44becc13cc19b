import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing
import VMMControl

@testable import Machine

@Suite(.serialized, .enabled(if: MachineProcess.isPossible, "needs root, /dev/kvm and martlet-vmm"))
struct MachineProcessTests {
    @Test func eachEndHasItsReason() throws {
        let guests: [([UInt8], MachineStop, String)] = [
            (TinyGuest.reset, .reset, "the guest reset the machine"),
            (TinyGuest.tripleFault, .tripleFault, "vCPU 0 shut down after a triple fault"),
            (TinyGuest.lost, .unhandled, "vCPU 0: KVM could not go on"),
            (TinyGuest.halt, .halted, "vCPU 0 halted for good: rip 0x10000"),
            (TinyGuest.powerOff, .poweredOff, "the guest powered off"),
        ]
        for (code, end, reason) in guests {
            let machine = try MachineProcess()
            try machine.make()
            try machine.boot(TinyGuest.elf(code))
            let reported = try #require(machine.events.end(within: .seconds(2)), "\(reason)")
            #expect(reported.0 == end)
            #expect(reported.1.hasPrefix(reason), "\(reported.1)")
        }
    }

    /// The guest reads the file's bytes, and writes none.
    @Test func aWriteToTheRootImageEndsTheMachine() throws {
        for (byte, end) in [(UInt8(0x5a), MachineStop.unhandled), (0, .halted)] {
            let machine = try MachineProcess()
            try machine.make()
            let image = try OwnedDescriptor.memory("image", size: 4 << 20)
            #expect(pwrite(image.raw, [byte], 1, 0) == 1)
            try machine.client.addRootImage(file: image.raw).wait()
            #expect(refusal { try machine.client.addRootImage(file: image.raw).wait() }.contains("has a root image"))
            try machine.boot(TinyGuest.elf(TinyGuest.rootImage))
            let reported = try #require(machine.events.end(within: .seconds(2)))
            #expect(reported.0 == end)
            let reason = "the guest wrote to its read-only root image at 0x100000010"
            #expect(end != .unhandled || reported.1 == reason, "\(reported.1)")
            var bytes = [UInt8](repeating: 1, count: 0x20)
            #expect(pread(image.raw, &bytes, bytes.count, 0) == 0x20)
            #expect(bytes == [byte] + [UInt8](repeating: 0, count: 0x1f))
        }
    }

    @Test func whatCanBeNoRootImageIsRefused() throws {
        let machine = try MachineProcess()
        try machine.make()
        for size: Int64 in [0, 4096, (2 << 20) + 4096, (1 << 30) + (2 << 20)] {
            let image = try OwnedDescriptor.memory("image", size: size)
            #expect(refusal { try machine.client.addRootImage(file: image.raw).wait() }.contains("\(size) bytes"))
        }
        let (pipe, _) = try SharedDescriptor.pipe()
        #expect(refusal { try machine.client.addRootImage(file: pipe.raw).wait() }.contains("not a regular file"))
    }

    /// An idle guest is not a dead one: it waits for an interrupt.
    @Test func aGuestThatWaitsIsNotEnded() throws {
        let machine = try MachineProcess()
        try machine.make(vcpus: 2)
        try machine.boot(TinyGuest.elf(TinyGuest.wait))
        #expect(machine.events.end(within: .milliseconds(1700)) == nil)
        #expect(machine.child.ended == nil)
    }

    @Test func whatIsAskedOutOfOrderIsRefused() throws {
        let machine = try MachineProcess()
        #expect(refusal { try machine.boot(TinyGuest.elf(TinyGuest.reset)) }.contains("no machine yet"))
        #expect(refusal { try machine.client.addEntropy().wait() }.contains("no machine yet"))
        #expect(refusal { try machine.make(mebibytes: 32) }.contains("64 MiB"))
        #expect(refusal { try machine.make(vcpus: 33) }.contains("33 vCPUs"))
        try machine.make()
        #expect(refusal { try machine.make() }.contains("already"))
        #expect(refusal { try machine.client.pressPowerButton() }.contains("the machine is created"))
        #expect(refusal { try machine.boot(Array("#!/bin/sh".utf8)) }.contains("neither"))
        #expect(refusal { try machine.boot(Array(TinyGuest.elf(TinyGuest.reset).prefix(70))) }.contains("guest kernel"))
        #expect(refusal { try machine.client.setBalloon(bytes: 4096) }.contains("no balloon"))
        try machine.client.addBalloon(reportsFreePages: true).wait()
        #expect(refusal { try machine.client.addBalloon(reportsFreePages: true).wait() }.contains("balloon already"))
        #expect(refusal { try machine.client.setBalloon(bytes: 1 << 40) }.contains("1099511627776 bytes"))
        try machine.client.setBalloon(bytes: 4096)
        #expect(try machine.client.statistics(timeout: .seconds(10)).balloon?.target == 4096)
        for _ in 0..<17 { try machine.client.addEntropy().wait() }
        #expect(refusal { try machine.client.addEntropy().wait() }.contains("more than 18"))
        try machine.boot(TinyGuest.elf(TinyGuest.reset))
        #expect(refusal { try machine.boot(TinyGuest.elf(TinyGuest.reset)) }.contains("boot: the machine is "))
        #expect(machine.events.end(within: .seconds(2))?.0 == .reset)
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
            #expect(machine.events.end(within: .seconds(10))?.0 == .reset)
            machine.child.signal(SIGTERM)
        }
        let lines = try readText(path).split(separator: "\n")
        let start = try #require(lines.firstIndex { $0.contains("pivot_root(") }, "the trace saw no start")
        // Threads were made after it, so the trace goes on.
        #expect(lines[start...].contains { $0.contains("clone") })
        let names = ["open(", "openat(", "openat2(", "creat(", "execve(", "mknod", "socket("]
        for line in lines[(start + 1)...] { #expect(!names.contains { line.contains(" " + $0) }, "\(line)") }
    }

    /// Every device that it serves itself.
    private func addDevices(_ machine: MachineProcess) throws {
        try machine.make(vcpus: 2)
        let (_, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        try machine.client.addConsole(output: theirs.raw, kind: .virtio).wait()
        try machine.client.addConsole(output: theirs.raw, kind: .serial).wait()
        try machine.client.addEntropy().wait()
        try machine.client.addVsock(guestCID: 3).wait()
        for name in ["one", "two"] {
            let disk = try OwnedDescriptor.memory("disk", size: 1 << 20)
            try machine.client.addBlock(files: DiskFiles(disk.raw), readOnly: name == "two", id: name).wait()
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
        #expect(machine.events.all.isEmpty, "\(machine.events.all)")
    }
}
