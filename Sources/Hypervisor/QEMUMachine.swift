import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization
import VMMControl

/// A VM that QEMU runs, with its two device processes.
final class QEMUMachine: VirtualMachine {
    private let qemu: ChildProcess
    private let vsock: DeviceProcess
    private let files: DeviceProcess
    private let qmp: QMP
    private let console: Console
    private let errors: Console
    private let logger: Logger
    /// What was seen of the end, in order; `end()` tells the cause from it.
    private let signs: Mutex<[VMEnd]>
    private let dying: Promise<Void>
    private let dead: Promise<VMEnd>

    init(_ driver: QEMUDriver, _ configuration: VMConfiguration) throws {
        let logger = driver.logger
        let log: @Sendable (String) -> Void = { logger.debug("\($0)") }
        let dying = try Promise<Void>()
        self.dying = dying
        dead = try Promise()
        let notices = Notices(dying: dying)
        let program = try Programs.own("martlet-device")
        vsock = try DeviceProcess(kind: "vsock", executable: program, log: log) { notices.take("vsock", $0) }
        files = try DeviceProcess(kind: "files", executable: program, log: log) { notices.take("files", $0) }
        let sockets = try (0..<4).map { _ in try SharedDescriptor.socketPair(SOCK_STREAM) }
        let (output, input) = try SharedDescriptor.pipe()
        do {
            try vsock.client.startVsock(vhostUser: sockets[2].0.raw, guestCID: configuration.guestCID)
            let proc = try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY)
            try files.client.startFiles(vhostUser: sockets[3].0.raw, tag: "martlet", proc: proc.raw)
            qemu = try ChildProcess(
                "qemu",
                .init(
                    executable: driver.executable, arguments: driver.arguments(configuration),
                    environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                    descriptors: [-1, input.raw, input.raw] + sockets.map { $0.1.raw }, newSession: true,
                    diesWithParent: true))
        } catch {
            for device in [vsock, files] {
                device.child.signal(SIGKILL)
                _ = device.child.waitForEnd(timeout: .seconds(5))
            }
            throw error
        }
        qmp = try QMP(socket: sockets[0].0, log: log)
        console = try Console("guest console", source: sockets[1].0) { logger.debug("guest: \($0)") }
        errors = try Console("log qemu", source: output) { logger.debug("qemu: \($0)") }
        self.logger = logger
        signs = Mutex([])
        notices.attach { [weak self] in self?.sign($0) }
        for child in [qemu, vsock.child, files.child] {
            Task.detached { [self] in
                let end = await child.end()
                sign(.processEnded(name: child.name, how: "\(end)"))
            }
        }
        Task.detached { [self] in await bury() }
    }

    var processes: [(name: String, pid: Int32)] { children.map { ($0.name, $0.pid) } }
    private var children: [ChildProcess] { [qemu, vsock.child, files.child] }

    func addShare(name: String, tree: Int32, readOnly: Bool) throws {
        try files.client.addShare(name: name, directory: tree, readOnly: readOnly)
    }

    func removeShare(name: String) throws { try files.client.removeShare(name: name) }

    func connect(port: UInt32, stream: Int32, deadline: Duration) throws {
        try vsock.client.connect(port: port, stream: stream, deadline: deadline)
    }

    func kill(_ reason: VMEnd) { sign(reason) }

    func end() async -> VMEnd { await dead.value() }

    var consoleTail: [String] { console.tail(20) }

    private func sign(_ sign: VMEnd) {
        signs.withLock { $0.append(sign) }
        dying.settle(())
    }

    /// Waits for the first sign of the end, ends what is left, and tells the cause.
    private func bury() async {
        await dying.value()
        // One death brings the others with it, and the sign of the cause may come second: look at all that came at once.
        try? await Task.sleep(for: .milliseconds(60))
        // Before the kills below, which are no cause.
        let signs = signs.withLock { $0 }
        for child in children { child.signal(SIGKILL) }
        let qemuEnd = await qemu.end()
        _ = await vsock.child.end()
        _ = await files.child.end()
        console.waitForEnd(timeout: .seconds(1))
        errors.waitForEnd(timeout: .seconds(1))
        dead.settle(cause(signs, qemuEnd))
    }

    /// The most telling of the signs: what the host decided, then a process that was killed, then what the guest did to
    /// itself, then a broken device, then a process that ended by itself.
    private func cause(_ signs: [VMEnd], _ qemuEnd: ProcessEnd) -> VMEnd {
        if case .ended? = signs.first, let decided = signs.first { return decided }
        let killed = signs.first {
            if case .processEnded(_, let how) = $0 { how.contains("killed") } else { false }
        }
        if let killed { return killed }
        let panic = console.tail(Console.maximumLines).last { $0.contains("Kernel panic") }
        switch qmp.shutdownReason.withLock({ $0 }) {
        case "guest-shutdown": return .poweredOff
        case "guest-reset", "guest-panic": return .guestCrashed(panic.map(withoutTimestamp) ?? "the machine was reset")
        default: break
        }
        let broken = signs.first {
            if case .deviceBroken = $0 { true } else { false }
        }
        if let broken { return broken }
        if let panic { return .guestCrashed(withoutTimestamp(panic)) }
        if signs.contains(.poweredOff) { return .poweredOff }
        let words = errors.tail(3).joined(separator: "; ")
        if case .processEnded(let name, let how)? = signs.first, name != qemu.name {
            return .processEnded(name: name, how: how)
        }
        return .processEnded(name: qemu.name, how: "\(qemuEnd)" + (words.isEmpty ? "" : ": \(words)"))
    }

    private func withoutTimestamp(_ line: String) -> String {
        line.firstRange(of: "Kernel panic").map { String(line[$0.lowerBound...]) } ?? line
    }
}

/// Passes the device processes' notices on to the machine, also those that come before it is whole.
private final class Notices: Sendable {
    private let dying: Promise<Void>
    private let state = Mutex<(early: [VMEnd], sink: (@Sendable (VMEnd) -> Void)?)>(([], nil))

    init(dying: Promise<Void>) { self.dying = dying }

    func take(_ device: String, _ notice: DeviceNotice) {
        // A closed control socket is no sign: the process has ended, and its reaper tells how.
        guard case .broken(let reason) = notice else { return }
        let sign = VMEnd.deviceBroken(name: device, reason: reason)
        let sink = state.withLock { state in
            if state.sink == nil { state.early.append(sign) }
            return state.sink
        }
        sink?(sign)
    }

    func attach(_ sink: @Sendable @escaping (VMEnd) -> Void) {
        let early = state.withLock { state in
            state.sink = sink
            return state.early
        }
        for sign in early { sink(sign) }
    }
}
