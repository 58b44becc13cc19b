import CLinux
import Glibc
import Jail
import LinuxSystem
import Synchronization
import Testing
import VMMControl

@testable import VhostUser
@testable import Virtio

/// The real `martlet-device`, as its parent sees it. Needs root, and strace for one test.
@Suite(.timeLimit(.minutes(2)), .enabled(if: DeviceProgram.isPossible, "needs root and a built martlet-device"))
struct DeviceProcessTests {
    /// Waits for the end of a child: its exit code, or nil when it was killed or does not end.
    private static func exitCode(_ pid: pid_t) -> Int32? {
        var status: Int32 = 0
        for _ in 0..<1000 {
            if waitpid(pid, &status, WNOHANG) == pid { return status & 0x7f == 0 ? status >> 8 & 0xff : nil }
            usleep(10_000)
        }
        return nil
    }

    @Test func theVsockProcessHasNoPrivileges() throws {
        let pid: pid_t
        do {
            let device = try DeviceProcess(["vsock"])
            pid = device.pid
            let (machine, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            try device.client.startVsock(vhostUser: theirs.raw, guestCID: 3).wait()
            for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                #expect(device.status(field) == "0000000000000000")
            }
            #expect(device.status("Uid") == "65534 65534 65534 65534")
            #expect(device.status("Gid") == "65534 65534 65534 65534")
            #expect(device.status("NoNewPrivs") == "1")
            #expect(device.status("Groups")?.allSatisfy { $0 == " " } ?? true)
            // An empty root, and no way to the one outside.
            #expect(access("/proc/\(pid)/root/etc", F_OK) == -1)
            let (_, stream) = try SharedDescriptor.socketPair(SOCK_STREAM)
            #expect(throws: DeviceError.notReady) {
                try device.client.connect(port: 1, stream: stream.raw, deadline: .seconds(1))
            }
            #expect(throws: DeviceError.failed("the device is started already")) {
                try device.client.startVsock(vhostUser: theirs.raw, guestCID: 3).wait()
            }
            #expect(throws: DeviceError.self) { try device.client.removeShare(name: "x") }
            // What the machine's process sends is not trusted either.
            let nonsense = [UInt8](repeating: 255, count: 64)
            #expect(send(machine.raw, nonsense, nonsense.count, 0) == 64)
            #expect(
                device.sink.wait(
                    for: .broken(
                        reason: "vhost-user: message header with request 4294967295, flags 4294967295, 4294967295 bytes"
                    )))
        }
        // The client's end is the process's.
        #expect(Self.exitCode(pid) == 0)
    }

    @Test func theFileProcessKeepsWhatItNeeds() throws {
        let device = try DeviceProcess(["files"])
        let (_, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let directory = try OwnedDescriptor.open("/usr", O_PATH | O_DIRECTORY)
        #expect(throws: DeviceError.failed("the device is not started")) {
            try device.client.addShare(name: "root/early", directory: directory.raw, readOnly: true)
        }
        try device.client.startFiles(vhostUser: theirs.raw, tag: "martlet", memoryLimit: 128 << 20)
            .wait()
        let kept = String(Capabilities.fileServer.rawValue, radix: 16)
        let mask = String(repeating: "0", count: 16 - kept.count) + kept
        for field in ["CapPrm", "CapEff", "CapBnd"] { #expect(device.status(field) == mask) }
        #expect(device.status("Umask") == "0000" && device.status("NoNewPrivs") == "1")
        #expect(access("/proc/\(device.pid)/root/etc", F_OK) == -1)
        let limits = fileContents("/proc/\(device.pid)/limits").split(separator: "\n").first {
            $0.hasPrefix("Max open files")
        }
        let numbers = limits?.split(separator: " ").compactMap { Int($0) } ?? []
        #expect(numbers.count == 2 && numbers.first == numbers.last)
        try device.client.addShare(name: "root/usr", directory: directory.raw, readOnly: true)
        #expect(throws: DeviceError.self) {
            try device.client.addShare(name: "root/usr", directory: directory.raw, readOnly: true)
        }
        #expect(throws: DeviceError.self) {
            try device.client.addShare(name: "a/b/c", directory: directory.raw, readOnly: true)
        }
        try device.client.removeShare(name: "root/usr")
        #expect(throws: DeviceError.self) { try device.client.removeShare(name: "root/usr") }
        // A killed process: all callers get an error.
        kill(device.pid, SIGKILL)
        #expect(device.sink.waitForClose())
        #expect(throws: DeviceError.closed) { try device.client.removeShare(name: "x") }
        #expect(Self.exitCode(device.pid) == nil)
    }

    /// A disk without privileges: its configuration, a request by rings, and what is refused.
    @Test func theDiskProcess() throws {
        let path = "/tmp/martlet-disk-\(getpid())"
        defer { unlink(path) }
        let file = try OwnedDescriptor.open(path, O_RDWR | O_CREAT | O_EXCL, mode: 0o600)
        try check("write", path, pwrite(file.raw, "sector 2", 8, 1024))
        try check("ftruncate", path, ftruncate(file.raw, 4096))
        let device = try DeviceProcess(["blk"])
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (read, _) = try SharedDescriptor.pipe()
        #expect(throws: DeviceError.failed("disk: neither a regular file nor a block device (mode 010600)")) {
            try device.client.startBlock(vhostUser: theirs.raw, files: DiskFiles(read.raw), readOnly: true, id: "disk")
                .wait()
        }
        let reply = try device.client.startBlock(
            vhostUser: theirs.raw, files: DiskFiles(file.raw), readOnly: true, id: "disk", queues: 2
        ).wait()
        // Whoever runs this may have a host without io_uring.
        let usesRing = RingPool(count: 1, isShared: false).obstacle == nil
        #expect(reply == .disk(DiskMode(usesRing: usesRing, isDirect: false, queues: 2)))
        #expect(throws: DeviceError.failed("the device is started already")) {
            try device.client.startBlock(vhostUser: theirs.raw, files: DiskFiles(file.raw), readOnly: true, id: "disk")
                .wait()
        }
        #expect(device.status("CapPrm") == "0000000000000000" && device.status("Uid") == "65534 65534 65534 65534")

        let memory = try FakeMemory()
        let front = FakeFrontEnd(ours, memory: memory)
        let ring = FakeRing(memory, at: FakeMemory.base, size: 128)
        let (kick, call) = (try TestEvent(), try TestEvent())
        let space = FakeFrontEnd.bytes(0 as UInt32, 60 as UInt32, 0 as UInt32)
        try front.send(.getConfiguration, space + [UInt8](repeating: 0, count: 60))
        #expect(try front.reply(to: .getConfiguration)?.dropFirst(12).prefix(8) == [8, 0, 0, 0, 0, 0, 0, 0])
        try front.bringUp([ring], [kick.raw], [call.raw])
        #expect(try front.ask(.getQueueNumber) == 2)
        let header = FakeMemory.base + 0x10000
        for (type, answer): (UInt32, [UInt8]) in [(0, [0]), (1, [1])] {
            memory.write(FakeFrontEnd.bytes(type, 0 as UInt32, 2 as UInt64), at: header)
            ring.setUsedEvent(ring.used)
            ring.add([(header, 16, false), (header + 512, 512, type == 0), (header + 16, 1, true)])
            kick.signal()
            #expect(isReadable(call.raw))
            call.drain()
            #expect(ring.takeUsed().map(\.count) == [type == 0 ? 513 : 1])
            #expect(memory.read(1, at: header + 16) == answer)
        }
        #expect(memory.read(8, at: header + 512) == Array("sector 2".utf8))
    }

    /// What a guest knows of one file process goes on with another, in their jails.
    @Test func theFileProcessesStateMovesOn() throws {
        let share = "/tmp/martlet-state-\(getpid())"
        try check("mkdir", share, mkdir(share, 0o700))
        defer {
            for name in ["file", "other"] { unlink("\(share)/\(name)") }
            rmdir(share)
        }
        for name in ["file", "other"] {
            let file = try OwnedDescriptor.open("\(share)/\(name)", O_CREAT | O_WRONLY, mode: 0o600)
            _ = write(file.raw, name, name.utf8.count)
        }
        let state = try OwnedDescriptor.memory("state", size: 0)
        func start() throws -> (DeviceProcess, FuseGuest, FakeFrontEnd) {
            let device = try DeviceProcess(["files"])
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            #expect(throws: DeviceError.failed("the device is not started")) {
                _ = try device.client.saveFiles(to: state.raw)
            }
            try device.client.startFiles(vhostUser: theirs.raw, tag: "martlet", memoryLimit: 128 << 20).wait()
            let directory = try OwnedDescriptor.open(share, O_PATH | O_DIRECTORY)
            try device.client.addShare(name: "fs/s", directory: directory.raw, readOnly: false)
            let guest = try FuseGuest()
            let front = FakeFrontEnd(ours, memory: guest.memory)
            try front.bringUp(guest.rings, guest.kicks.map(\.raw), guest.calls.map(\.raw), protocolFeatures: 9)
            return (device, guest, front)
        }
        let file: UInt64
        let root: UInt64
        let handle: UInt64
        do {
            let (device, guest, front) = try start()
            defer { withExtendedLifetime(front) {} }
            try guest.begin()
            root = try guest.lookUp("s", in: guest.lookUp("fs"))
            file = try guest.lookUp("file", in: root)
            handle = try guest.call(14, file, FakeFrontEnd.bytes(UInt32(O_RDWR), 0 as UInt32))
                .withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
            let bytes = try device.client.saveFiles(to: state.raw)
            var facts = stat()
            #expect(fstat(state.raw, &facts) == 0 && bytes > 100 && facts.st_size == Int(bytes))
        }
        let (device, guest, front) = try start()
        defer { withExtendedLifetime(front) {} }
        try device.client.restoreFiles(from: state.raw)
        let read = FakeFrontEnd.bytes(
            handle, 0 as UInt64, 4096 as UInt32, 0 as UInt32, 0 as UInt64, 0 as UInt32, 0 as UInt32)
        #expect(try guest.call(15, file, read) == Array("file".utf8))
        #expect(try guest.lookUp("file", in: root) == file)
        #expect(![root, file].contains(try guest.lookUp("other", in: root)))
        #expect(throws: DeviceError.failed("file server state: the server has served requests already")) {
            try device.client.restoreFiles(from: state.raw)
        }
        // Refused by name.
        unlink(share + "/file")
        #expect(throws: DeviceError.failed("fs/s/file is open but has been deleted")) {
            _ = try device.client.saveFiles(to: state.raw)
        }
        let (third, _, _) = try start()
        #expect(throws: DeviceError.failed("fs/s/file was open and is not there any more")) {
            try third.client.restoreFiles(from: state.raw)
        }
        let (fourth, _, _) = try start()
        let large = try OwnedDescriptor.memory("large", size: 65 << 20)
        #expect(throws: DeviceError.failed("file server state: 68157440 bytes, more than 67108864")) {
            try fourth.client.restoreFiles(from: large.raw)
        }
        let (pipe, _) = try SharedDescriptor.pipe()
        #expect(throws: DeviceError.failed("file server state, file: magic is cut off")) {
            try fourth.client.restoreFiles(from: pipe.raw)
        }
    }

    @Test func wrongArguments() throws {
        for arguments in [
            [], ["disk"], ["vsock", "--uid"], ["vsock", "--uid", "x"], ["files", "--uid", "4294967295"],
        ] {
            let device = try DeviceProcess(arguments)
            #expect(Self.exitCode(device.pid) == 1)
        }
    }

    /// After its start the file process opens nothing by a path from the root or from its working directory.
    @Test(.enabled(if: access("/usr/bin/strace", X_OK) == 0, "needs strace"))
    func nothingIsOpenedByPath() throws {
        let directory = "/tmp/martlet-trace-\(getpid())"
        try check("mkdir", directory, mkdir(directory, 0o700))
        let trace = directory + "/trace"
        let share = directory + "/share"
        try check("mkdir", share, mkdir(share, 0o700))
        defer {
            unlink(share + "/file")
            unlink(trace)
            rmdir(share)
            rmdir(directory)
        }
        _ = try OwnedDescriptor.open(share + "/file", O_CREAT | O_WRONLY, mode: 0o600)
        let pid: pid_t
        do {
            let device = try DeviceProcess(["files"], tracedTo: trace)
            pid = device.pid
            try serveSome(device, share)
        }
        #expect(Self.exitCode(pid) == 0)
        let lines = fileContents(trace).split(separator: "\n").map(String.init)
        // From the moment its root is empty.
        let start = try #require(lines.firstIndex { $0.contains("pivot_root(") })
        let later = lines[(start + 1)...]
        #expect(later.contains { $0.contains("openat2(") || $0.contains("openat(") }, "the trace saw no request")
        for line in later {
            guard ["open(", "openat(", "openat2(", "creat("].contains(where: { line.contains(" " + $0) }) else {
                continue
            }
            let absolute = line.contains(", \"/")
            let fromWorkingDirectory = line.contains("AT_FDCWD") || line.contains(" open(") || line.contains(" creat(")
            let inRoot = line.contains("RESOLVE_IN_ROOT") || line.contains("RESOLVE_BENEATH")
            #expect(!fromWorkingDirectory && (!absolute || inRoot), "\(line)")
        }
    }

    /// Looks a file up, opens and reads it, over rings, as a guest would.
    private func serveSome(_ device: DeviceProcess, _ share: String) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let directory = try OwnedDescriptor.open(share, O_PATH | O_DIRECTORY)
        try device.client.startFiles(vhostUser: theirs.raw, tag: "martlet", memoryLimit: 128 << 20)
            .wait()
        try device.client.addShare(name: "fs/s", directory: directory.raw, readOnly: false)
        let guest = try FuseGuest()
        let front = FakeFrontEnd(ours, memory: guest.memory)
        try front.bringUp(
            guest.rings, guest.kicks.map(\.raw), guest.calls.map(\.raw), protocolFeatures: 9)
        try guest.begin()
        let node = try guest.lookUp("s", in: guest.lookUp("fs"))
        let file = try guest.lookUp("file", in: node)
        #expect(node > 1 && file > 1)
        _ = try guest.call(14, file, FakeFrontEnd.bytes(UInt32(O_RDONLY), 0 as UInt32))
        _ = try guest.call(27, node, FakeFrontEnd.bytes(UInt32(O_DIRECTORY), 0 as UInt32))
        _ = try guest.call(
            35, node,
            FakeFrontEnd.bytes(UInt32(O_CREAT | O_WRONLY), 0o644 as UInt32, 0 as UInt32, 0 as UInt32)
                + Array("new\0".utf8))
        _ = try guest.call(10, node, Array("new\0".utf8))
    }
}
