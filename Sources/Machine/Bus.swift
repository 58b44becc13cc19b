import Glibc
import Synchronization

/// Something with registers on a bus. Called by the vCPUs' threads, several at a time.
open class BusDevice: @unchecked Sendable {
    public init() {}
    /// Fills `data`, 1 to 8 bytes, from `offset` on.
    open func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {}
    open func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {}
}

/// An address space with devices in it: ports, or guest-physical addresses without memory. Fixed once the machine runs.
///
/// Where there is no device a read gives ones and a write is lost.
public struct Bus: Sendable {
    private struct Entry {
        var range: Range<UInt64>
        var device: BusDevice
    }
    /// By address.
    private var entries: [Entry] = []

    public init() {}

    /// Adds a device.
    ///
    /// - Parameter range: its addresses; the device gets offsets into it.
    /// - Throws: `MachineError` where another device is there already.
    public mutating func add(_ device: BusDevice, at range: Range<UInt64>) throws(MachineError) {
        if let other = entries.first(where: { $0.range.overlaps(range) }) {
            throw MachineError(
                "two devices at \(hexadecimal(max(range.lowerBound, other.range.lowerBound))) of one bus")
        }
        let index = entries.firstIndex { $0.range.lowerBound > range.lowerBound } ?? entries.endIndex
        entries.insert(Entry(range: range, device: device), at: index)
    }

    func read(_ address: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        guard let entry = entry(of: address, data.count) else {
            data.initializeMemory(as: UInt8.self, repeating: 0xff)
            return
        }
        data.initializeMemory(as: UInt8.self, repeating: 0)
        entry.device.read(address - entry.range.lowerBound, data)
    }

    func write(_ address: UInt64, _ data: UnsafeRawBufferPointer) {
        guard let entry = entry(of: address, data.count) else { return }
        entry.device.write(address - entry.range.lowerBound, data)
    }

    /// The device that has all of the access.
    private func entry(of address: UInt64, _ count: Int) -> Entry? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].range.upperBound <= address { low = middle + 1 } else { high = middle }
        }
        guard low < entries.count, entries[low].range.lowerBound <= address,
            entries[low].range.upperBound - address >= UInt64(count)
        else { return nil }
        return entries[low]
    }
}
