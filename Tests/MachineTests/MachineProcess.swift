import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing
import VMMControl

@testable import Machine

/// The real `martlet-vmm`, as the pod's server sees it.
final class MachineProcess {
    static let executable = program("martlet-vmm")
    static let isPossible: Bool = {
        let possible = TinyKVM.isReady && geteuid() == 0 && access(executable, X_OK) == 0
        if !possible { print("martlet-vmm is not tested: it needs root, /dev/kvm and \(executable)") }
        return possible
    }()

    private static func program(_ name: String) -> String {
        let path = symbolicLink("/proc/self/exe") ?? ""
        // The test runner is beside what is tested, or is the toolchain's and got the bundle as an argument.
        let found = ([path] + CommandLine.arguments).map {
            $0.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/" + name
        }
        return found.first { access($0, X_OK) == 0 } ?? name
    }

    let child: ChildProcess
    let client: ControlClient
    let events: Events

    /// What it has reported by itself.
    final class Events: Sendable {
        private let list = Mutex<[ControlEvent]>([])
        func add(_ event: ControlEvent) { list.withLock { $0.append(event) } }
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
        var command = [Self.executable]
        if let trace { command = ["/usr/bin/strace", "-f", "-e", "trace=file,process", "-o", trace] + command }
        child = try ChildProcess(
            "martlet-vmm",
            .init(
                executable: command[0], arguments: Array(command.dropFirst()), descriptors: [-1, 2, 2, theirs.raw],
                diesWithParent: true, newPIDNamespace: true))
        let events = Events()
        self.events = events
        client = ControlClient(control: ours) { events.add($0) }
    }

    deinit {
        child.signal(SIGKILL)
        _ = child.waitForEnd(timeout: .seconds(5))
    }

    /// - Parameter saved: a file of its memory, which stays as it is; nil: it begins with zeros.
    func make(mebibytes: UInt64 = 64, vcpus: UInt32 = 1, memory saved: Int32? = nil) throws {
        let kvm = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
        let memory = try OwnedDescriptor.memory("tiny", size: Int64(mebibytes) << 20)
        try client.makeMachine(
            kvm: kvm.raw, memory: saved ?? memory.raw,
            .init(memoryBytes: mebibytes << 20, isPrivate: saved != nil, vcpus: vcpus)
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

    /// How many threads and descriptors it has.
    var threads: Int { Int(status("Threads") ?? "") ?? 0 }
    var descriptors: Int { (try? directoryNames("/proc/\(child.pid)/fd").count) ?? 0 }
}

/// Waits until a condition holds, for so long at most; whether it does.
func eventually(within limit: Duration = .seconds(5), _ condition: () -> Bool) -> Bool {
    let deadline = ContinuousClock.now + limit
    while !condition() {
        if ContinuousClock.now > deadline { return false }
        usleep(5000)
    }
    return true
}

/// What a refused request answers.
func refusal(_ body: () throws -> Void) -> String {
    do { try body() } catch { return "\(error)" }
    return "done"
}
