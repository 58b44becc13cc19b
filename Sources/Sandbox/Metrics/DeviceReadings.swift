import Telemetry
import VMMControl

extension ProcessStatistics {
    func readings() -> MetricReadings {
        var readings = MetricReadings()
        for queue in queues {
            let labels = [queue.device.name(queue.number), "\(queue.queue)"]
            readings.add(.queueChains, labels, queue.chains)
            readings.add(.queueInterrupts, labels, queue.interrupts)
            readings.add(.queueBytes, labels + ["read"], queue.read)
            readings.add(.queueBytes, labels + ["write"], queue.written)
        }
        for operation in operations {
            let histogram = Histogram(counts: operation.counts, sum: Double(operation.nanoseconds) / 1e9)
            readings.add(.fileOperations, ["\(operation.kind)"], histogram)
        }
        if let connections {
            readings.add(.vsockConnections, [], UInt64(connections.current))
            readings.add(.vsockBytes, ["receive"], connections.toGuest)
            readings.add(.vsockBytes, ["transmit"], connections.fromGuest)
        }
        if let balloon {
            if let reported = balloon.reported { readings.add(.guestReported, [], reported) }
            readings.add(.guestBalloon, [], balloon.size)
            for (kind, bytes) in [
                ("available", balloon.available), ("cached", balloon.caches), ("free", balloon.free),
            ] {
                if let bytes { readings.add(.balloonTold, [kind], bytes) }
            }
        }
        return readings
    }
}

extension DeviceKind {
    /// Of devices of which a machine may have several, with a number.
    fileprivate func name(_ number: UInt8) -> String {
        switch self {
        case .network, .block: "\(self)\(number)"
        case .console, .entropy, .vsock, .files, .balloon, .memory: "\(self)"
        case .rootImage: "root_image"
        }
    }
}
