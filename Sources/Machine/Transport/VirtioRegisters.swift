/// The registers of virtio over MMIO (virtio 1.2, 4.2.2), by offset.
enum VirtioRegister {
    static let magic: UInt64 = 0x000
    static let version: UInt64 = 0x004
    static let deviceID: UInt64 = 0x008
    static let vendorID: UInt64 = 0x00c
    static let deviceFeatures: UInt64 = 0x010
    static let deviceFeaturesSelector: UInt64 = 0x014
    static let driverFeatures: UInt64 = 0x020
    static let driverFeaturesSelector: UInt64 = 0x024
    static let queueSelector: UInt64 = 0x030
    static let queueSizeMaximum: UInt64 = 0x034
    static let queueSize: UInt64 = 0x038
    static let queueReady: UInt64 = 0x044
    static let queueNotify: UInt64 = 0x050
    static let interruptStatus: UInt64 = 0x060
    static let interruptAcknowledge: UInt64 = 0x064
    static let status: UInt64 = 0x070
    static let descriptorsLow: UInt64 = 0x080
    static let descriptorsHigh: UInt64 = 0x084
    static let driverLow: UInt64 = 0x090
    static let driverHigh: UInt64 = 0x094
    static let deviceLow: UInt64 = 0x0a0
    static let deviceHigh: UInt64 = 0x0a4
    static let sharedMemoryLengthLow: UInt64 = 0x0b0
    static let sharedMemoryBaseHigh: UInt64 = 0x0bc
    static let configurationGeneration: UInt64 = 0x0fc
    static let configuration: UInt64 = 0x100
}

/// Bits of the interrupt status (virtio 1.2, 4.2.2).
enum InterruptStatus {
    static let usedBuffers: UInt32 = 1
    static let configurationChange: UInt32 = 2
}

/// The device status field (virtio 1.2, 2.1).
struct DeviceStatus: OptionSet, Sendable {
    let rawValue: UInt32
    static let acknowledge = DeviceStatus(rawValue: 1)
    static let driver = DeviceStatus(rawValue: 2)
    static let driverOK = DeviceStatus(rawValue: 4)
    static let featuresOK = DeviceStatus(rawValue: 8)
    static let needsReset = DeviceStatus(rawValue: 64)
    static let failed = DeviceStatus(rawValue: 128)

    /// The steps of a driver's initialization (virtio 1.2, 3.1.1): each state, and the only one that follows it. A reset and
    /// FAILED are always possible; everything else that a driver writes changes nothing.
    private static let steps: [(from: DeviceStatus, to: DeviceStatus)] = [
        ([], [.acknowledge]),
        ([.acknowledge], [.acknowledge, .driver]),
        ([.acknowledge, .driver], [.acknowledge, .driver, .featuresOK]),
        ([.acknowledge, .driver, .featuresOK], [.acknowledge, .driver, .featuresOK, .driverOK]),
    ]

    enum Transition: Sendable, Equatable {
        case reset
        case step(DeviceStatus)
        case failed, refused
    }

    /// What the driver's write means in this state.
    func transition(to value: UInt32) -> Transition {
        if value == 0 { return .reset }
        if contains(.failed) { return .refused }
        if value & Self.failed.rawValue != 0 { return .failed }
        // A driver that reads, sets a bit and writes keeps NEEDS_RESET, which is not its own.
        let next = DeviceStatus(rawValue: value).subtracting(.needsReset)
        return Self.steps.contains { $0.from == self && $0.to == next } ? .step(next) : .refused
    }
}
