import CLinux
import Glibc
import LinuxSystem
import PodNetwork
import Synchronization
import Testing

@testable import Sandbox

private enum DeviceProgram {
    /// `martlet-device`, which is beside the tests.
    static let path: String? = (CommandLine.arguments + ["/proc/self/exe"]).compactMap {
        realpath($0, nil).map { String(cString: $0) }
    }
    .map { $0.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/martlet-device" }
    .first { access($0, X_OK) == 0 }

    static let isPossible: Bool = {
        let possible = geteuid() == 0 && path != nil
        if !possible { print("host processes are not tested: that needs root, and martlet-device beside the tests") }
        return possible
    }()
}

/// A container's process on the host, and how commands hand one in.
@Suite(.enabled(if: DeviceProgram.isPossible)) struct HostProcessTests {
    private final class Events: Sendable {
        private let all = Mutex<[HostProcess.Event]>([])
        func add(_ event: HostProcess.Event) { all.withLock { $0.append(event) } }
        /// Waits until there are `count` events.
        func wait(for count: Int) -> [HostProcess.Event] {
            for _ in 0..<2000 {
                let events = all.withLock { $0 }
                if events.count >= count { return events }
                usleep(5000)
            }
            return all.withLock { $0 }
        }
    }

    private func start(
        _ namespace: NetworkNamespace? = nil, stdio: [Int32] = [-1, -1, -1]
    ) throws -> (HostProcess, ChildProcess, Events) {
        let (child, control) = try HostProcess.spawn(
            HostProcess.title(container: "c", pod: "p"), stdio: stdio, executable: DeviceProgram.path)
        let process = HostProcess(pid: child.pid, control: control)
        try process.enter(namespace)
        let events = Events()
        try process.watch { events.add($0) }
        return (process, child, events)
    }

    @Test func itEndsAsTheContainerEnds() throws {
        for end in [
            ProcessEnd.exited(0), .exited(7), .exited(255), .signaled(SIGKILL), .signaled(SIGSEGV), .signaled(SIGTERM),
        ] {
            let (process, child, events) = try start()
            process.end(end)
            #expect(child.waitForEnd(timeout: .seconds(10)) == end)
            #expect(events.wait(for: 1) == [.ended])
        }
    }

    @Test func itEndsWithItsServer() throws {
        let (child, control) = try HostProcess.spawn(["container", "c"], executable: DeviceProgram.path)
        shutdown(control.raw, Int32(SHUT_RDWR))
        #expect(child.waitForEnd(timeout: .seconds(10)) == .exited(255))
    }

    @Test func signalsAreForTheContainer() throws {
        let (process, child, events) = try start()
        for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, 37] {
            child.signal(number)
            _ = events.wait(for: 1)
        }
        #expect(
            Set(events.wait(for: 5).map { "\($0)" })
                == Set([SIGTERM, SIGINT, SIGHUP, SIGUSR1, 37].map { "\(HostProcess.Event.signal($0))" }))
        #expect(child.ended == nil)
        process.end(.exited(0))
        #expect(child.waitForEnd(timeout: .seconds(10)) == .exited(0))
    }

    @Test func aKilledOneIsTold() throws {
        let (_, child, events) = try start()
        child.signal(SIGKILL)
        #expect(events.wait(for: 1) == [.ended])
    }

    @Test func aTerminalTellsOfItsSize() throws {
        let master = SharedDescriptor(try OwnedDescriptor.open("/dev/ptmx", O_RDWR | O_NOCTTY))
        var unlock: Int32 = 0
        try check("unlock", "", martlet_ioctl_pointer(master.raw, UInt(MARTLET_TIOCSPTLCK), &unlock))
        let slave = SharedDescriptor(
            OwnedDescriptor(
                owning: try check(
                    "open", "", martlet_ioctl_int(master.raw, UInt(MARTLET_TIOCGPTPEER), Int(O_RDWR | O_NOCTTY)))))
        let (process, child, events) = try start(stdio: [slave.raw, slave.raw, slave.raw])
        var size = winsize(ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0)
        #expect(martlet_ioctl_pointer(master.raw, UInt(TIOCSWINSZ), &size) == 0)
        #expect(events.wait(for: 1) == [.resized(width: 100, height: 40)])
        process.end(.exited(0))
        #expect(child.waitForEnd(timeout: .seconds(10)) == .exited(0))
    }

    @Test func itIsInTheNamespaceWithoutPrivileges() throws {
        let network = try PodNetwork(path: nil)
        let (process, child, _) = try start(network.namespace)
        func identity(_ path: String) throws -> [UInt] {
            var facts = stat()
            try check("stat", path, stat(path, &facts))
            return [facts.st_dev, facts.st_ino]
        }
        #expect(
            try identity("/proc/\(child.pid)/ns/net")
                == identity("/proc/self/fd/\(network.namespace.descriptor.raw)"))
        let status = try readText("/proc/\(child.pid)/status")
        #expect(status.contains("CapEff:\t0000000000000000") && status.contains("Uid:\t65534"))
        #expect(
            try readText("/proc/\(child.pid)/cmdline").split(separator: "\0").dropFirst().joined(separator: " ")
                == "container c pod p")
        // At most a mebibyte of memory of its own; what is clean is the program, which all containers share.
        let pages = try readText("/proc/\(child.pid)/smaps_rollup").split(separator: "\n")
            .filter { $0.hasPrefix("Private_Dirty") }
            .compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } }
        #expect(pages.reduce(0, +) <= 1024, "\(pages)")
        process.end(.exited(0))
        #expect(child.waitForEnd(timeout: .seconds(10)) == .exited(0))
    }

    @Test func aProcessIsHandedIn() throws {
        let directory = "/tmp/martlet-handed-\(getpid())"
        try makeDirectories(directory)
        defer {
            _ = try? ChildProcess("rm", .init(executable: "/bin/rm", arguments: ["-rf", directory], descriptors: []))
        }
        let socket = "\(directory)/s"
        let table = HandedProcesses()
        let listener = SharedDescriptor(try UnixAddress.listen(HandedProcesses.path(of: socket), type: SOCK_SEQPACKET))
        try table.serve(listening: listener)
        let (output, outputEnd) = try SharedDescriptor.pipe()
        let (_, control) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)

        let (number, connection) = try HandedProcesses.hand(
            42, control: control, stdio: [output, outputEnd, outputEnd], to: socket)
        let handed = try #require(try table.take(HandedProcesses.name(number)))
        #expect(handed.process.pid == 42 && handed.stdio.count == 3)
        #expect(write(handed.stdio[1].raw, "x", 1) == 1)
        var byte: UInt8 = 0
        #expect(read(output.raw, &byte, 1) == 1 && byte == UInt8(ascii: "x"))
        // Once only, and no other.
        #expect(throws: SandboxError.self) { try table.take(HandedProcesses.name(number)) }
        #expect(throws: SandboxError.self) { try table.take("process:x") }
        #expect(try table.take("/run/fifo") == nil)

        // A stream by itself.
        let (third, last) = try HandedProcesses.hand(stream: outputEnd, to: socket)
        let stream = try table.takeStream(HandedProcesses.streamName(third))
        #expect(write(stream.raw, "y", 1) == 1 && read(output.raw, &byte, 1) == 1 && byte == UInt8(ascii: "y"))
        for name in [HandedProcesses.streamName(third), "stream:x", HandedProcesses.name(number), ""] {
            #expect(throws: SandboxError.self) { try table.takeStream(name) }
        }
        withExtendedLifetime(last) {}

        // What was not taken goes with the connection.
        let (second, other) = try HandedProcesses.hand(
            43, control: control, stdio: [output, outputEnd, outputEnd], to: socket)
        shutdown(other.raw, Int32(SHUT_RDWR))
        var isGone = false
        for _ in 0..<1000 where !isGone {
            usleep(5000)
            isGone = table.count == 0
        }
        #expect(isGone)
        #expect(throws: SandboxError.self) { try table.take(HandedProcesses.name(second)) }
        withExtendedLifetime(connection) {}
    }
}
