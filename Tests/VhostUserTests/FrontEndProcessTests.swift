import CLinux
import Glibc
import LinuxSystem
import Testing
import VMMControl

@testable import FileService
@testable import VhostUser
@testable import Virtio

/// The front end against real device processes: `martlet-device`, and QEMU's file server where it is installed.
@Suite(.timeLimit(.minutes(1))) struct FrontEndProcessTests {
    /// A directory with a file `file` in it.
    private final class Share {
        let path: String

        init(_ name: String) throws {
            path = "/tmp/martlet-\(name)-\(getpid())"
            try check("mkdir", path, mkdir(path, 0o755))
            let file = try OwnedDescriptor.open(path + "/file", O_CREAT | O_WRONLY, mode: 0o644)
            try check("write", path, write(file.raw, "content", 7))
        }

        deinit {
            unlink(path + "/file")
            rmdir(path)
        }
    }

    private static func files(_ guest: FuseGuest, _ socket: SharedDescriptor) throws -> VhostUserFrontEnd {
        try VhostUserFrontEnd(
            socket: socket, memory: guest.regions, queueCount: 2,
            configuration: .own(FileDevice.configuration(tag: "martlet")))
    }

    @Test(.enabled(if: DeviceProgram.isPossible, "needs root and a built martlet-device"))
    func ourFileProcess() throws {
        let share = try Share("front")
        let device = try DeviceProcess(["files"])
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let directory = try OwnedDescriptor.open(share.path, O_PATH | O_DIRECTORY)
        try device.client.startFiles(vhostUser: theirs.raw, tag: "martlet", memoryLimit: 128 << 20)
            .wait()
        try device.client.addShare(name: "fs/s", directory: directory.raw, readOnly: true)
        let guest = try FuseGuest()
        let front = try Self.files(guest, ours)
        for queue in 0..<2 { try front.start(queue: queue, guest.setup(queue)) }
        try guest.begin()
        #expect(
            try guest.contents(guest.lookUp("file", in: guest.lookUp("s", in: guest.lookUp("fs"))))
                == Array("content".utf8))
        #expect(guest.wasInterrupted(1))
        #expect(front.stop(queue: 0) == 0 && front.stop(queue: 1) == 6)
        // A killed process: its end is reported.
        final class Report { var failure: VhostUserFrontEnd.Failure? }
        let report = Report()
        let loop = try EventLoop()
        try front.watch(loop) { report.failure = $0 }
        // This process has the other end too.
        shutdown(theirs.raw, Int32(SHUT_RDWR))
        try loop.runOnce(timeoutMilliseconds: 2000)
        front.unwatch(loop)
        #expect(report.failure == .connection(.hungUp(0)))
    }

    private static let virtiofsd = "/usr/lib/qemu/virtiofsd"
    private static let canRunVirtiofsd: Bool = {
        let possible = geteuid() == 0 && access(virtiofsd, X_OK) == 0
        if !possible { print("the front end is not tested against virtiofsd: it needs root, and \(virtiofsd)") }
        return possible
    }()

    @Test(.enabled(if: canRunVirtiofsd, "needs root and Debian's virtiofsd"))
    func debiansFileServer() throws {
        let share = try Share("virtiofsd")
        let path = "/tmp/martlet-virtiofsd-\(getpid()).socket"
        defer { unlink(path) }
        let process = try ChildProcess(
            "virtiofsd",
            .init(
                executable: Self.virtiofsd,
                arguments: ["--socket-path=\(path)", "-o", "source=\(share.path)", "-o", "sandbox=chroot"],
                descriptors: [-1, 2, 2], diesWithParent: true))
        defer {
            process.signal(SIGKILL)
            _ = process.waitForEnd(timeout: .seconds(5))
        }
        let guest = try FuseGuest()
        do {
            let front = try Self.files(guest, Self.connect(path))
            for queue in 0..<2 { try front.start(queue: queue, guest.setup(queue)) }
            try guest.begin()
            #expect(try guest.contents(guest.lookUp("file")) == Array("content".utf8))
            #expect(guest.wasInterrupted(1))
            #expect(front.stop(queue: 1) == 4)
            try front.start(queue: 1, guest.setup(1, position: 4))
            #expect(try guest.lookUp("file") > 1)
            #expect(front.stop(queue: 1) == 5 && front.stop(queue: 0) == 0)
        }
        // It ends by itself when its machine has gone.
        #expect(process.waitForEnd(timeout: .seconds(5)) != nil)
    }

    /// Connects to a socket that is not there yet.
    private static func connect(_ path: String) throws -> SharedDescriptor {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let socket = SharedDescriptor(
            OwnedDescriptor(
                owning: try check(
                    "socket", path, Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
                )))
        for _ in 0..<500 {
            let result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            if result == 0 { return socket }
            usleep(10_000)
        }
        throw SystemError.last("connect", path)
    }
}
