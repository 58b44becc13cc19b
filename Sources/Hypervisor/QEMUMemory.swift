import Synchronization
import VMMControl

/// The memory balloon of a machine that QEMU runs, and the memory that comes and goes.
///
/// Source: QEMU qapi/machine.json (`balloon`, `query-balloon`); docs/interop/virtio-balloon-stats.rst; qapi/qom.json and
/// hw/virtio/virtio-mem.c (`requested-size`, `size`).
final class QEMUMemory: Sendable {
    /// Of the machine, from the start on.
    private let bytes: UInt64
    /// What it can get besides.
    private let hotplugBytes: UInt64
    private let state: Mutex<(target: UInt64, isPolling: Bool)> = Mutex((0, false))
    /// How often the guest tells of its memory once somebody has asked, seconds.
    private static let pollingInterval = 30

    /// Where QEMU's object model has the balloon.
    private let balloonPath: String

    /// - Parameter balloon: the name of the balloon's device.
    init(bytes: UInt64, hotplugBytes: UInt64, balloon: String = QEMUDriver.balloonID) {
        (self.bytes, self.hotplugBytes) = (bytes, hotplugBytes)
        balloonPath = "/machine/peripheral/\(balloon)"
    }

    // MARK: Memory that comes and goes

    private static let hotplugID = "hotplug"
    private static var hotplugPath: [String: QMP.Argument] { ["path": "/machine/peripheral/\(hotplugID)"] }

    /// The device by which the guest gets memory while it runs. Device processes map all of it; what is not plugged takes no memory.
    static func arguments(_ vm: VMConfiguration) -> [String] {
        if vm.hotplugMiB == 0 { return [] }
        return [
            "-object", "memory-backend-memfd,id=hotplugmemory,size=\(vm.hotplugMiB)M,share=on,reserve=off",
            "-device",
            "virtio-mem-pci,id=\(hotplugID),memdev=hotplugmemory,requested-size=0,"
                + "block-size=\(VMConfiguration.memoryBlockMiB)M",
        ]
    }

    /// Has the guest use so much of it.
    func setHotplug(bytes wanted: UInt64, _ qmp: any QEMUMonitor) throws {
        guard wanted <= hotplugBytes else {
            throw HypervisorError("\(wanted) bytes of memory to be plugged: the machine has \(hotplugBytes)")
        }
        if hotplugBytes == 0 { return }
        let value: [String: QMP.Argument] = ["property": "requested-size", "value": .number(Int(wanted))]
        try qmp.execute("qom-set", Self.hotplugPath.merging(value) { $1 })
    }

    /// - Returns: what the guest is asked to use, and what it uses.
    func hotplug(_ qmp: any QEMUMonitor, timeout: Duration) throws -> (requested: UInt64, plugged: UInt64) {
        if hotplugBytes == 0 { return (0, 0) }
        func read(_ property: String) throws -> UInt64 {
            let arguments = Self.hotplugPath.merging(["property": .text(property)]) { $1 }
            guard let value = try qmp.execute("qom-get", arguments, timeout: timeout).number else {
                throw HypervisorError("qemu: qom-get \(property): no number")
            }
            return value
        }
        return (try read("requested-size"), try read("size"))
    }

    // MARK: The balloon, for which QEMU takes the memory that is there from the start on as all that there is

    /// Has the guest give up so much.
    func setBalloon(bytes given: UInt64, _ qmp: any QEMUMonitor) throws {
        guard given < bytes else { throw HypervisorError("a balloon of \(given) bytes: the machine has \(bytes)") }
        try qmp.execute("balloon", ["value": .number(Int(bytes - given))])
        state.withLock { $0.target = given }
    }

    /// What the guest has given up, and what it told of its memory last: at first, nothing.
    func balloon(_ qmp: any QEMUMonitor, timeout: Duration) throws -> ProcessStatistics.Balloon {
        let (target, wasPolling) = state.withLock { state in
            defer { state.isPolling = true }
            return (state.target, state.isPolling)
        }
        let actual = try qmp.execute("query-balloon", timeout: timeout).actual ?? bytes
        let path: [String: QMP.Argument] = ["path": .text(balloonPath)]
        if !wasPolling {
            let interval: [String: QMP.Argument] = [
                "property": "guest-stats-polling-interval", "value": .number(Self.pollingInterval),
            ]
            _ = try? qmp.execute("qom-set", path.merging(interval) { $1 }, timeout: timeout)
        }
        // A guest without a driver tells nothing.
        let statistics: [String: QMP.Argument] = ["property": "guest-stats"]
        let told = (try? qmp.execute("qom-get", path.merging(statistics) { $1 }, timeout: timeout))?.stats ?? [:]
        return ProcessStatistics.Balloon(
            target: target, size: actual < bytes ? bytes - actual : 0, reported: nil, free: told["stat-free-memory"],
            available: told["stat-available-memory"], caches: told["stat-disk-caches"])
    }
}
