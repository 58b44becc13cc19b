public import LinuxSystem

/// What is wrong with the saved state of a device.
public struct DeviceStateError: StateFailure, Sendable, Equatable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// As a device's saved state is read: what is wrong with it is a `DeviceStateError`.
typealias DeviceStateReader = StateReader<DeviceStateError>

extension DeviceStateReader {
    /// Reads a state that is one number.
    ///
    /// - Parameters:
    ///   - device: its name, for errors.
    ///   - field: the number's name, for errors.
    ///   - state: not trusted.
    /// - Throws: `DeviceStateError` where it is cut off or too long.
    static func number<Number: FixedWidthInteger>(
        _ device: String, _ field: String, _ state: [UInt8]
    ) throws(DeviceStateError) -> Number {
        var reader = DeviceStateReader(device, section: "saved state", state[...])
        let number: Number = try reader.number(field)
        try reader.finish()
        return number
    }
}
