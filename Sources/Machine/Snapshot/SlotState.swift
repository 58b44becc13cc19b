import LinuxSystem

/// The state of an MMIO slot's device, as its transport has it (virtio 1.2, 4.2.2).
struct SlotState: Sendable, Equatable {
    struct Queue: Sendable, Equatable {
        var size: UInt32 = 0
        var isReady = false
        var isRunning = false
        var descriptors: UInt64 = 0
        var driver: UInt64 = 0
        var device: UInt64 = 0
        /// The index of the available entry that the device takes next.
        var position: UInt16 = 0
    }

    var index: Int
    var deviceID: UInt32
    var status: UInt32
    var deviceFeaturesSelector: UInt32 = 0
    var driverFeaturesSelector: UInt32 = 0
    var driverFeatures: UInt64 = 0
    var queueSelector: UInt32 = 0
    var configurationGeneration: UInt32 = 0
    /// What of the device's configuration space is its own: of a network interface, its hardware address first.
    var configuration: [UInt8] = []
    /// What the device keeps beside its queues (`BackendDevice.savedState`).
    var deviceState: [UInt8] = []
    var queues: [Queue] = []

    /// A device has fewer queues than this.
    private static let maximumQueues = 64
    /// A configuration space has fewer bytes than this.
    private static let maximumConfiguration = 256
    /// What a device keeps beside its queues has no more bytes than this.
    static let maximumDeviceState = 64 << 10

    func encode(to section: inout StateWriter) {
        section.add(UInt32(index))
        section.add(deviceID)
        section.add(status)
        section.add(deviceFeaturesSelector)
        section.add(driverFeaturesSelector)
        section.add(driverFeatures)
        section.add(queueSelector)
        section.add(configurationGeneration)
        section.add(bytes: configuration)
        section.add(bytes: deviceState)
        section.add(each: queues) { section, queue in
            section.add(queue.size)
            section.add(queue.isReady)
            section.add(queue.isRunning)
            section.add(queue.descriptors)
            section.add(queue.driver)
            section.add(queue.device)
            section.add(queue.position)
        }
    }

    init(_ section: inout StateReader) throws(MachineError) {
        index = try Self.index(&section)
        deviceID = try section.number("device ID")
        status = try section.number("status")
        deviceFeaturesSelector = try section.number("device features selector")
        driverFeaturesSelector = try section.number("driver features selector")
        driverFeatures = try section.number("driver features")
        queueSelector = try section.number("queue selector")
        configurationGeneration = try section.number("configuration generation")
        configuration = try section.bytes("configuration space")
        guard configuration.count <= Self.maximumConfiguration else {
            throw section.error("a configuration space of \(configuration.count) bytes")
        }
        deviceState = try section.bytes("device state")
        guard deviceState.count <= Self.maximumDeviceState else {
            throw section.error("a device state of \(deviceState.count) bytes")
        }
        queues = try section.each("queues", atMost: Self.maximumQueues) { section throws(MachineError) in
            Queue(
                size: try section.number("size"), isReady: try section.flag("ready"),
                isRunning: try section.flag("running"), descriptors: try section.number("descriptors"),
                driver: try section.number("driver area"), device: try section.number("device area"),
                position: try section.number("position"))
        }
    }

    init(index: Int, deviceID: UInt32, status: UInt32) {
        self.index = index
        self.deviceID = deviceID
        self.status = status
    }

    /// Reads a slot's number.
    static func index(_ section: inout StateReader) throws(MachineError) -> Int {
        let index: UInt32 = try section.number("slot")
        guard index < UInt32(Platform.slotInterrupts.count) else { throw section.error("slot \(index)") }
        return Int(index)
    }
}
