import AgentContract
import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization
import VMMControl

/// A VM that QEMU runs, with its device processes: for vsock, for files, and one for each disk.
final class QEMUMachine: VirtualMachine {
    private let qemu: ChildProcess
    private let vsock: DeviceProcess
    private let files: DeviceProcess
    private let disks: [DeviceProcess]
    private let qmp: QMP
    let console: Console
    private let errors: Console
    private let watch: MachineWatch
    /// The hardware addresses of the network interfaces that were added, by number.
    private let networks = Mutex<[[UInt8]]>([])
    private let hasVhostNet: Bool

    init(_ driver: QEMUDriver, _ configuration: VMConfiguration) throws {
        let logger = driver.logger
        hasVhostNet = driver.hasVhostNet
        let log: @Sendable (String) -> Void = { logger.debug("\($0)") }
        let watch = try MachineWatch()
        self.watch = watch
        var started: [DeviceProcess] = []
        func start(_ kind: String, _ name: String) throws -> DeviceProcess {
            let process = try DeviceProcess("martlet-device", kind, log: log) { watch.notice(name, $0) }
            started.append(process)
            return process
        }
        let sockets = try (0..<4 + configuration.disks.count).map { _ in try SharedDescriptor.socketPair(SOCK_STREAM) }
        let output: SharedDescriptor
        do {
            vsock = try start("vsock", "vsock")
            files = try start("files", "files")
            disks = try configuration.disks.map { try start("blk", "disk \($0.id)") }
            let proc = try OwnedDescriptor.open("/proc", O_RDONLY | O_DIRECTORY)
            var answers = [
                try vsock.client.startVsock(vhostUser: sockets[2].0.raw, guestCID: configuration.guestCID),
                try files.client.startFiles(vhostUser: sockets[3].0.raw, tag: ShareDevice.tag, proc: proc.raw),
            ]
            for (index, disk) in configuration.disks.enumerated() {
                let file = try disk.open()
                answers.append(
                    try disks[index].client.startBlock(
                        vhostUser: sockets[4 + index].0.raw, file: file.raw, readOnly: disk.readOnly, id: disk.id))
            }
            for answer in answers { try answer.wait() }
            (qemu, output) = try ChildProcess.withPipe(
                "qemu",
                .init(
                    executable: driver.executable, arguments: driver.arguments(configuration),
                    environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                    descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe] + sockets.map { $0.1.raw },
                    newSession: true, diesWithParent: true))
        } catch {
            MachineWatch.abandon(started.map(\.child))
            throw error
        }
        logger.phase("machine spawned")
        qmp = try QMP(socket: sockets[0].0, log: log)
        console = try Console("guest console", source: sockets[1].0) { watch.guest($0, logger) }
        errors = try Console("log qemu", source: output) { logger.debug("qemu: \($0)") }
        watch.begin([qemu] + started.map(\.child)) { [self] in await cause($0) }
    }

    var processes: [(name: String, pid: Int32)] {
        ([qemu] + ([vsock, files] + disks).map(\.child)).map { ($0.name, $0.pid) }
    }

    func agentReady(within limit: Duration) async throws { try await watch.agentReady(within: limit) }

    func addShare(name: String, tree: Int32, readOnly: Bool) throws {
        try files.client.addShare(name: name, directory: tree, readOnly: readOnly)
    }

    func removeShare(name: String) throws { try files.client.removeShare(name: name) }

    func addNetwork(hardwareAddress: [UInt8], queues: [Int32]) throws {
        try networks.withLock { networks throws in
            guard networks.count < QEMUDriver.sparePorts else {
                throw HypervisorError("more than \(QEMUDriver.sparePorts) network interfaces")
            }
            try qmp.addNetwork(
                number: networks.count, hardwareAddress: hardwareAddress, queues: queues, vhost: hasVhostNet)
            networks.append(hardwareAddress)
        }
    }

    func removeNetwork(hardwareAddress: [UInt8]) throws {
        guard let number = networks.withLock({ $0.lastIndex(of: hardwareAddress) }) else { return }
        try qmp.removeNetwork(number: number)
    }

    func connect(port: UInt32, stream: Int32, deadline: Duration) throws {
        try vsock.client.connect(port: port, stream: stream, deadline: deadline)
    }

    func kill(_ reason: VMEnd) { watch.sign(reason) }

    func end() async -> VMEnd { await watch.end() }

    /// The most telling of the signs: what the host decided, then a process that was killed, then what the guest did to
    /// itself, then a broken device, then a process that ended by itself.
    private func cause(_ signs: [VMEnd]) async -> VMEnd {
        console.waitForEnd(timeout: .seconds(1))
        errors.waitForEnd(timeout: .seconds(1))
        if let sign = signs.decided ?? signs.killed { return sign }
        let panic = console.panic
        switch qmp.shutdownReason.withLock({ $0 }) {
        case "guest-shutdown": return .poweredOff
        case "guest-reset", "guest-panic": return .guestCrashed(panic ?? "the machine was reset")
        default: break
        }
        if let broken = signs.broken { return broken }
        if let panic { return .guestCrashed(panic) }
        if signs.contains(.poweredOff) { return .poweredOff }
        if case .processEnded(let name, let how)? = signs.first, name != qemu.name {
            return .processEnded(name: name, how: how)
        }
        let words = errors.tail(3).joined(separator: "; ")
        return .processEnded(name: qemu.name, how: "\(await qemu.end())" + (words.isEmpty ? "" : ": \(words)"))
    }
}
