import CLinux
import Glibc
import Hypervisor
import LinuxSystem

/// A process that serves the share.
protocol FileServerProcess {
    /// The machine's end of the vhost-user connection.
    var machine: SharedDescriptor { get }
    /// How the process ended; nil while it runs.
    var ended: ProcessEnd? { get }
    /// Ends the process and waits for its end.
    func end()
}

/// `martlet-device files`, as in a pod.
final class MartletServer: FileServerProcess {
    let machine: SharedDescriptor
    private let device: DeviceProcess

    init(_ directory: RunDirectory, log: @Sendable @escaping (String) -> Void) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        device = try DeviceProcess("martlet-device", "files", log: log) { notice in
            if case .broken(let reason) = notice { log("martlet-device files: \(reason)") }
        }
        machine = theirs
        do {
            try device.client.startFiles(vhostUser: ours.raw, tag: "martlet", memoryLimit: 512 << 20)
                .wait()
            let work = try OwnedDescriptor.open(directory.work, O_RDONLY | O_DIRECTORY)
            try device.client.addShare(name: "work/files", directory: work.raw, readOnly: false)
        } catch {
            end()
            throw error
        }
    }

    var ended: ProcessEnd? { device.child.ended }

    func end() {
        device.child.signal(SIGKILL)
        _ = device.child.waitForEnd(timeout: .seconds(5))
    }
}

/// QEMU's virtiofsd with its defaults. It takes a listening socket and accepts one connection.
final class VirtiofsServer: FileServerProcess {
    let machine: SharedDescriptor
    private let child: ChildProcess

    init(_ directory: RunDirectory, program: String, log: @Sendable @escaping (String) -> Void) throws {
        let path = directory.path + "/socket"
        let listener = SharedDescriptor(try UnixAddress.listen(path))
        // The connection waits in the listener's queue until virtiofsd accepts it.
        machine = SharedDescriptor(try UnixAddress.connect(path))
        let output: SharedDescriptor
        (child, output) = try ChildProcess.withPipe(
            "virtiofsd",
            .init(
                executable: program, arguments: ["--fd=3", "-o", "source=\(directory.root)", "-o", "cache=auto"],
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, listener.raw], newSession: true,
                diesWithParent: true))
        _ = try Console("log virtiofsd", source: output) { log("virtiofsd: \($0)") }
    }

    var ended: ProcessEnd? { child.ended }

    /// virtiofsd ends with its connection. Its worker is in a pid namespace of its own, and gets SIGTERM when the parent process
    /// ends first.
    func end() {
        if child.waitForEnd(timeout: .seconds(2)) != nil { return }
        child.signal(SIGTERM)
        if child.waitForEnd(timeout: .seconds(2)) != nil { return }
        child.signal(SIGKILL)
        _ = child.waitForEnd(timeout: .seconds(5))
    }
}
