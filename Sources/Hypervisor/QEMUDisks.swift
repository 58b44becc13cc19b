import CLinux
import Glibc
import LinuxSystem
import Synchronization
import VMMControl

extension DiskMode {
    /// - Parameter reply: to the request for a disk.
    package init(_ reply: ControlReply) throws(HypervisorError) {
        guard case .disk(let mode) = reply else {
            throw HypervisorError("the process did not say how it serves a disk")
        }
        self = mode
    }
}

/// The disks of a machine that QEMU runs: each has a process that serves it.
final class QEMUDisks: Sendable {
    private struct Plugged {
        var id: String
        var process: DeviceProcess
        /// QEMU's connection to the process.
        var channel: String
    }

    private let slots: QEMUSlots
    private let watch: MachineWatch
    private let user: UInt32
    private let queues: UInt8
    private let log: @Sendable (String) -> Void
    private let plugged = Mutex<[Plugged]>([])

    /// - Parameters:
    ///   - user: whom the processes run as.
    ///   - queues: how many a disk may have.
    init(
        _ slots: QEMUSlots, _ watch: MachineWatch, user: UInt32, queues: UInt8,
        log: @Sendable @escaping (String) -> Void
    ) {
        self.queues = queues
        self.slots = slots
        self.watch = watch
        self.user = user
        self.log = log
    }

    /// The processes that serve disks now.
    var processes: [DeviceProcess] { plugged.withLock { $0.map(\.process) } }

    private static func name(_ id: String) -> String { "disk \(id)" }

    /// Starts a process that serves the disk, and plugs it into a free slot.
    func add(_ disk: Disk, _ qmp: any QEMUMonitor) throws {
        let open = try disk.open()
        let (index, device) = try slots.claim(Self.name(disk.id))
        let channel = "disk\(device.number)"
        var started: DeviceProcess?
        do {
            let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
            let (watch, name) = (watch, Self.name(disk.id))
            let process = try DeviceProcess("martlet-device", "blk", user: user, log: log) {
                watch.take($0, from: name)
            }
            started = process
            let reply = try open.send {
                try process.client.startBlock(
                    vhostUser: ours.raw, files: $0, readOnly: disk.readOnly, id: disk.id, queues: queues
                ).wait()
            }
            let mode = try DiskMode(reply)
            log("\(name): \(mode)")
            try plug(channel, theirs, device, into: index, queues: mode.queues, qmp)
            watch.add(process.process)
            plugged.withLock { $0.append(Plugged(id: disk.id, process: process, channel: channel)) }
        } catch {
            _ = try? qmp.execute("chardev-remove", ["id": .text(channel)])
            slots.giveBack(index)
            if let started { [started.process].abandon() }
            throw error
        }
    }

    private func plug(
        _ channel: String, _ socket: SharedDescriptor, _ device: QEMUSlots.Device, into index: Int, queues: UInt8,
        _ qmp: any QEMUMonitor
    ) throws {
        try qmp.execute("getfd", ["fdname": .text(channel)], descriptor: socket.raw)
        let address: QMP.Argument = .object(["type": "fd", "data": .object(["str": .text(channel)])])
        let backend: QMP.Argument = .object([
            "type": "socket", "data": .object(["addr": address, "server": false]),
        ])
        try qmp.execute("chardev-add", ["id": .text(channel), "backend": backend])
        try qmp.execute(
            "device_add",
            [
                "driver": "vhost-user-blk-pci", "id": .text(device.id), "chardev": .text(channel),
                "bus": .text(QEMUDriver.slotID(index)), "num-queues": .number(Int(queues)),
            ])
    }

    /// Takes a disk away, and ends its process.
    ///
    /// - Throws: `HypervisorError` where the guest does not let go of it: it stays.
    func remove(id: String, _ qmp: any QEMUMonitor) throws {
        guard try slots.remove(Self.name(id), qmp) ?? true else {
            throw HypervisorError("the guest does not let go of its disk \(id)")
        }
        let found: Plugged? = plugged.withLock { plugged in
            plugged.firstIndex { $0.id == id }.map { plugged.remove(at: $0) }
        }
        guard let found else { return }
        watch.forget(found.process.process)
        _ = try? qmp.execute("chardev-remove", ["id": .text(found.channel)])
        [found.process.process].abandon()
    }
}
