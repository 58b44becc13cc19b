import LinuxSystem
import Synchronization

/// The registers by which host and guest agree on which vCPUs there are (`ACPICPUStatus`). Thread-safe.
final class ProcessorControl: BusDevice, @unchecked Sendable {
    let ports: Range<UInt64>
    private let registers: Mutex<[UInt8]>
    /// The guest has let go of a vCPU; called on a vCPU's thread.
    private let onEject: @Sendable (Int) -> Void

    /// - Parameters:
    ///   - count: vCPUs that are there from the start on.
    ///   - maximum: those and the ones that can be plugged.
    init(count: Int, maximum: Int, onEject: @escaping @Sendable (Int) -> Void) {
        ports = UInt64(ACPIPort.processors)..<UInt64(ACPIPort.processors) + UInt64(maximum)
        registers = Mutex((0..<maximum).map { $0 < count ? ACPICPUStatus.present.rawValue : 0 })
        self.onEject = onEject
    }

    /// vCPUs that the guest has, or is getting.
    var presentCount: Int {
        registers.withLock { $0.count { $0 & ACPICPUStatus.present.rawValue != 0 } }
    }

    /// Gives a vCPU to the guest, once it has been told.
    func insert(_ index: Int) {
        registers.withLock { $0[index] = (ACPICPUStatus.present.union(.inserting)).rawValue }
    }

    /// Asks the guest to let go of a vCPU, once it has been told.
    func remove(_ index: Int) { registers.withLock { $0[index] |= ACPICPUStatus.removing.rawValue } }

    /// The registers, a byte each.
    var state: [UInt8] {
        get { registers.withLock { $0 } }
        set { registers.withLock { $0 = newValue } }
    }

    func isPresent(_ index: Int) -> Bool {
        registers.withLock { $0[index] & ACPICPUStatus.present.rawValue != 0 }
    }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        data[0] = registers.withLock { $0[Int(offset)] }
    }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        let (index, written) = (Int(offset), ACPICPUStatus(rawValue: data[0]))
        let isEjected = registers.withLock { registers in
            var status = ACPICPUStatus(rawValue: registers[index])
            status.subtract(written.intersection([.inserting, .removing]))
            let isEjected = written.contains(.ejected) && status.contains(.present) && index > 0
            registers[index] = isEjected ? 0 : status.rawValue
            return isEjected
        }
        if isEjected { onEject(index) }
    }
}
