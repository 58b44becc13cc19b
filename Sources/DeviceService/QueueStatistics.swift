public import VMMControl
public import Virtio

extension ProcessStatistics {
    /// Adds what the queues of a device have counted.
    ///
    /// - Parameter number: tells devices of one kind apart.
    public mutating func add(_ kind: DeviceKind, _ number: Int = 0, _ device: any BackendDevice) {
        for (index, counts) in device.queueCounts.enumerated() {
            queues.append(
                Queue(
                    device: kind, number: UInt8(clamping: number), queue: UInt8(clamping: index),
                    chains: counts.chains, interrupts: counts.interrupts, read: counts.fromDriver,
                    written: counts.toDriver))
        }
    }
}

extension ProcessStatistics.Balloon {
    /// Those of a balloon device.
    public init(_ device: BalloonBackend) {
        let told = device.statistics()
        self.init(
            target: device.targetBytes, size: device.actualBytes, reported: device.reportedBytes,
            free: told?.free, available: told?.available, caches: told?.caches)
    }
}

extension ProcessStatistics.Connections {
    /// Those of a vsock device.
    public init(_ device: VsockDevice) {
        self.init(
            current: UInt32(clamping: device.connectionCount), toGuest: device.bytesToGuest,
            fromGuest: device.bytesFromGuest)
    }
}
