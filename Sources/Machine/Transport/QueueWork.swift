import Virtio

/// Starts a device's queues on the loop's thread. The transport waits meanwhile, so nothing is touched by two threads.
struct StartWork: @unchecked Sendable {
    let device: any BackendDevice
    let setups: [(Int, QueueSetup)]
    let onFailure: @Sendable (String) -> Void

    /// False when a queue could not start: its geometry is wrong, or the device's process does not answer.
    func run() -> Bool {
        for (queue, setup) in setups {
            do { try device.start(queue: queue, setup) } catch {
                onFailure("queue \(queue): \(error)")
                return false
            }
        }
        return true
    }
}

/// Stops them; as above.
struct StopWork: @unchecked Sendable {
    let device: any BackendDevice
    let queues: [Int]
    func run() -> Bool {
        for queue in queues { _ = device.stop(queue: queue) }
        return true
    }
}
