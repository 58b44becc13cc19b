import AgentContract
import Glibc
import LinuxSystem
import Logging
import VMMControl

/// A VM that QEMU runs, with its device processes: for vsock and for files, and one for each disk, which come and go.
final class QEMUMachine: PluggedMachine {
    let watch: MachineWatch
    let console: Console
    let vsock: DeviceProcess
    let files: DeviceProcess?
    /// Those that live as long as the machine.
    let firstProcesses: [(name: String, pid: Int32)]
    private let qmp: QMP
    var monitor: any QEMUMonitor { qmp }
    let parts: QEMUParts

    init(_ driver: QEMUDriver, _ configuration: VMConfiguration) throws {
        let logger = driver.logger
        let log: @Sendable (String) -> Void = { logger.debug("\($0)") }
        let watch = try MachineWatch(readyEvent: .started, logger: logger)
        self.watch = watch
        let parts = QEMUParts(driver, configuration, watch, log: log)
        self.parts = parts
        let sockets = try QEMUDriver.descriptors(configuration).socketPairs()
        var devices = DeviceProcesses(watch, user: configuration.user, log: log)
        let qemu: MachineProcess
        do {
            vsock = try devices.start("martlet-device", "vsock", as: "vsock")
            files = configuration.hasFiles ? try devices.start("martlet-device", "files", as: "files") : nil
            var replies = [
                try vsock.client.startVsock(vhostUser: sockets[.vsock].raw, guestCID: configuration.guestCID)
            ]
            if let files {
                replies.append(
                    try files.client.startFiles(
                        vhostUser: sockets[.files].raw, tag: ShareDevice.tag,
                        memoryLimit: configuration.filesMemoryLimit, allowsDevices: configuration.allowsDeviceNodes))
            }
            for reply in replies { try reply.wait() }
            qmp = try QMP(socket: sockets[.monitor], log: log) { event in
                parts.slots.take(event)
                if let sign = VMEnd(event) { watch.sign(sign) }
            }
            console = try Console("guest console", source: sockets[.console]) { logger.debug("guest: \($0)") }
            qemu = try MachineProcess(
                "qemu", executable: try Programs.own("martlet-device"),
                arguments: try driver.jailedArguments(configuration),
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], descriptors: sockets.inherited, log: log)
        } catch {
            throw devices.abandon(after: error)
        }
        logger.phase("machine spawned")
        let all = [qemu] + devices.all
        firstProcesses = all.map { ($0.name, $0.child.pid) }
        watch.started()
        let console = console
        watch.begin(all) { signs in
            console.waitForEnd(timeout: .seconds(1))
            return .cause(of: signs, console: console) { all.outputTail(of: $0) }
        }
    }

    func pauseVCPUs() throws { try qmp.execute("stop") }

    func resumeVCPUs() throws { try qmp.execute("cont") }
}

extension VMEnd {
    /// What an event of QEMU's says of the machine's end; nil: nothing, or what its process's end will say.
    init?(_ event: QMPEvent) {
        switch event {
        case .shutdown(.guestShutdown): self = .poweredOff
        case .shutdown(.guestReset): self = .guestCrashed("the guest reset the machine")
        case .shutdown(.guestPanic): self = .guestCrashed("the guest reported a panic")
        default: return nil
        }
    }
}
