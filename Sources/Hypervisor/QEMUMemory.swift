import Synchronization
import VMMControl

/// The memory balloon of a machine that QEMU runs.
///
/// Source: QEMU qapi/machine.json (`balloon`, `query-balloon`); docs/interop/virtio-balloon-stats.rst.
final class QEMUMemory: Sendable {
    /// Of the machine.
    private let bytes: UInt64
    private let state: Mutex<(target: UInt64, isPolling: Bool)> = Mutex((0, false))
    /// How often the guest tells of its memory once somebody has asked, seconds.
    private static let pollingInterval = 30

    init(bytes: UInt64) { self.bytes = bytes }

    /// Has the guest give up so much.
    func setBalloon(bytes given: UInt64, _ qmp: QMP) throws {
        guard given < bytes else { throw HypervisorError("a balloon of \(given) bytes: the machine has \(bytes)") }
        try qmp.execute("balloon", ["value": .number(Int(bytes - given))])
        state.withLock { $0.target = given }
    }

    /// What the guest has given up, and what it told of its memory last: at first, nothing.
    func balloon(_ qmp: QMP, timeout: Duration) throws -> ProcessStatistics.Balloon {
        let (target, wasPolling) = state.withLock { state in
            defer { state.isPolling = true }
            return (state.target, state.isPolling)
        }
        let actual = try qmp.execute("query-balloon", timeout: timeout).actual ?? bytes
        let path: [String: QMP.Argument] = ["path": .text(QEMUDriver.balloonPath)]
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
