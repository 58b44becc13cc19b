import VMMControl

/// A machine that is made of the shared pieces: a watch, Martlet's device processes, and a console.
protocol ComposedMachine: VirtualMachine {
    var watch: MachineWatch { get }
    /// The process that serves the vsock device.
    var vsock: DeviceProcess { get }
    /// The process that serves the file device; nil where the machine has none.
    var files: DeviceProcess? { get }
    /// The processes that serve disks now, where each has one.
    var disks: [DeviceProcess] { get }
    /// The balloon, where no process of Martlet's serves it.
    func ownBalloon(timeout: Duration) -> ProcessStatistics.Balloon?
    /// Stops the vCPUs, whatever the machine's state is.
    func pauseVCPUs() throws
    /// Lets the vCPUs go on, whatever the machine's state is.
    func resumeVCPUs() throws
}

extension ComposedMachine {
    func ownBalloon(timeout: Duration) -> ProcessStatistics.Balloon? { nil }

    var state: MachineState { watch.state }

    func agentReady(within limit: Duration) async throws { try await watch.agentReady(within: limit) }

    func pause() throws { try watch.change(from: .running, to: .paused, pauseVCPUs) }

    func resume() throws { try watch.change(from: .paused, to: .running, resumeVCPUs) }

    func addShare(name: String, tree: Int32, readOnly: Bool) throws {
        try shares().addShare(name: name, directory: tree, readOnly: readOnly)
    }

    func removeShare(name: String) throws { try shares().removeShare(name: name) }

    private func shares() throws(HypervisorError) -> ControlClient {
        guard let files else { throw HypervisorError("the machine has no file device") }
        return files.client
    }

    func connect(port: UInt32, stream: Int32, deadline: Duration) throws {
        try vsock.client.connect(port: port, stream: stream, deadline: deadline)
    }

    func statistics(timeout: Duration) -> [ProcessStatistics] {
        var all = [vsock, files].compactMap { try? $0?.client.statistics(timeout: timeout) }
        for (number, disk) in disks.enumerated() {
            guard var statistics = try? disk.client.statistics(timeout: timeout) else { continue }
            // Each disk's process has one, its number 0.
            for index in statistics.queues.indices { statistics.queues[index].number = UInt8(clamping: number) }
            all.append(statistics)
        }
        if let balloon = ownBalloon(timeout: timeout) { all.append(ProcessStatistics(balloon: balloon)) }
        return all
    }

    func kill(_ reason: VMEnd) { watch.sign(reason) }

    func end() async -> VMEnd { await watch.end() }
}
