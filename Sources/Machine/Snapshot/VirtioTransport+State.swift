import Virtio

/// A transport's state, saved and restored while no vCPU runs. On the loop's thread.
extension VirtioTransport {
    /// Stops the device's queues, after the requests in progress, and reads the state. `resume` starts them again.
    ///
    /// - Parameter index: the slot's.
    /// - Throws: `MachineError` where the device needs a reset.
    func suspend(slot index: Int) throws(MachineError) -> SlotState {
        if needsReset.load(ordering: .sequentiallyConsistent) {
            throw MachineError("save: device \(deviceID) in MMIO slot \(index) needs a reset")
        }
        return registers.withLock { registers in
            var state = SlotState(index: index, deviceID: deviceID, status: registers.status.rawValue)
            state.deviceFeaturesSelector = registers.deviceFeaturesSelector
            state.driverFeaturesSelector = registers.driverFeaturesSelector
            state.driverFeatures = registers.driverFeatures
            state.queueSelector = registers.queueSelector
            state.configurationGeneration = page[VirtioRegister.configurationGeneration]
            state.configuration = device.configuration
            state.deviceState = device.savedState
            state.queues = registers.queues.enumerated().map { queue, values in
                SlotState.Queue(
                    size: values.size, isReady: values.isReady, isRunning: values.isRunning,
                    descriptors: values.descriptors, driver: values.driver, device: values.device,
                    position: values.isRunning ? device.stop(queue: queue) : 0)
            }
            return state
        }
    }

    /// Starts the queues that `suspend` has stopped.
    func resume(_ state: SlotState) {
        do { try registers.withLock { try startQueues(state, $0, isFresh: false) } } catch {
            onFailure("MMIO slot \(state.index): \(error)")
        }
    }

    /// Sets the state of a device that is as new, and starts the queues that ran.
    ///
    /// - Throws: `MachineError` where the state is of another device, or not one of the device's; what the device throws where a queue does not start.
    func restore(_ state: SlotState) throws {
        let name = "MMIO slot \(state.index)"
        guard state.deviceID == deviceID, state.queues.count == kicks.count else {
            throw MachineError(
                "\(name): the state is of device \(state.deviceID) with \(state.queues.count) queues, "
                    + "not of device \(deviceID) with \(kicks.count)")
        }
        guard state.driverFeatures & ~features == 0 else {
            throw MachineError("\(name): the driver uses features that the device does not have")
        }
        try registers.withLock { registers in
            registers.status = DeviceStatus(rawValue: state.status)
            registers.deviceFeaturesSelector = state.deviceFeaturesSelector
            registers.driverFeaturesSelector = state.driverFeaturesSelector
            registers.driverFeatures = state.driverFeatures
            registers.queueSelector = state.queueSelector
            registers.queues = state.queues.map {
                Queue(
                    size: $0.size, isReady: $0.isReady, descriptors: $0.descriptors, driver: $0.driver,
                    device: $0.device, isRunning: $0.isRunning)
            }
            page[VirtioRegister.configurationGeneration] = state.configurationGeneration
            show(registers)
            try startQueues(state, registers, isFresh: true)
            do { try device.restore(savedState: state.deviceState) } catch { throw MachineError("\(name): \(error)") }
            showConfiguration(notify: false)
        }
        // A device may have completed requests whose interrupt was still on its way when the state was saved.
        if isStarted { raise() }
    }

    private func startQueues(_ state: SlotState, _ registers: Registers, isFresh: Bool) throws {
        for (queue, values) in state.queues.enumerated() where values.isRunning {
            try device.start(queue: queue, setup(queue, registers, position: values.position, isFresh: isFresh))
        }
    }
}
