import Glibc
import Synchronization

/// Something with registers on a bus. Called by the processors' threads, several at a time.
open class BusDevice: @unchecked Sendable {
    public init() {}
    /// Fills `data`, 1 to 8 bytes, from `offset` on.
    open func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {}
    open func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {}
}

/// An address space with devices in it: ports, or memory that is no memory. Fixed once the machine runs.
///
/// Where there is no device a read gives ones and a write is lost, as on a bus that nobody drives.
public struct Bus: Sendable {
    private struct Place {
        var range: Range<UInt64>
        var device: BusDevice
    }
    /// By address.
    private var places: [Place] = []

    public init() {}

    /// - Throws: `MachineError` where another device is there already.
    public mutating func add(_ device: BusDevice, at range: Range<UInt64>) throws(MachineError) {
        if let other = places.first(where: { $0.range.overlaps(range) }) {
            throw MachineError(
                "two devices at \(hexadecimal(max(range.lowerBound, other.range.lowerBound))) of one bus")
        }
        let index = places.firstIndex { $0.range.lowerBound > range.lowerBound } ?? places.endIndex
        places.insert(Place(range: range, device: device), at: index)
    }

    func read(_ address: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        guard let place = place(of: address, data.count) else {
            data.initializeMemory(as: UInt8.self, repeating: 0xff)
            return
        }
        data.initializeMemory(as: UInt8.self, repeating: 0)
        place.device.read(address - place.range.lowerBound, data)
    }

    func write(_ address: UInt64, _ data: UnsafeRawBufferPointer) {
        guard let place = place(of: address, data.count) else { return }
        place.device.write(address - place.range.lowerBound, data)
    }

    /// The device that has all of the access.
    private func place(of address: UInt64, _ count: Int) -> Place? {
        var low = 0
        var high = places.count
        while low < high {
            let middle = (low + high) / 2
            if places[middle].range.upperBound <= address { low = middle + 1 } else { high = middle }
        }
        guard low < places.count, places[low].range.lowerBound <= address,
            places[low].range.upperBound - address >= UInt64(count)
        else { return nil }
        return places[low]
    }
}
