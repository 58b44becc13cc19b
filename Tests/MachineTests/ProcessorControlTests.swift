import Synchronization
import Testing

@testable import Machine

/// The registers of vCPUs that come and go, as the DSDT's methods use them.
@Suite struct ProcessorControlTests {
    private final class Ejections: Sendable {
        let indices = Mutex<[Int]>([])
    }

    private let ejections = Ejections()

    private func make(count: Int = 1, maximum: Int = 3) -> ProcessorControl {
        let ejections = ejections
        return ProcessorControl(count: count, maximum: maximum) { index in
            ejections.indices.withLock { $0.append(index) }
        }
    }

    private func read(_ control: ProcessorControl, _ index: UInt64) -> UInt8 {
        var byte: [UInt8] = [0xff]
        byte.withUnsafeMutableBytes { control.read(index, $0) }
        return byte[0]
    }

    private func write(_ control: ProcessorControl, _ index: UInt64, _ status: ACPICPUStatus) {
        [status.rawValue].withUnsafeBytes { control.write(index, $0) }
    }

    @Test func aVCPUComesAndGoes() {
        let control = make()
        #expect(control.ports.count == 3 && control.presentCount == 1)
        #expect((0..<3).map { read(control, $0) } == [1, 0, 0])
        control.insert(1)
        #expect(read(control, 1) == 0b011 && control.presentCount == 2 && control.isPresent(1))
        write(control, 1, .inserting)
        #expect(read(control, 1) == 0b001)
        control.remove(1)
        #expect(read(control, 1) == 0b101)
        write(control, 1, .removing)
        #expect(read(control, 1) == 0b001 && control.isPresent(1) && ejections.indices.withLock { $0 } == [])
        write(control, 1, .ejected)
        #expect(read(control, 1) == 0 && control.presentCount == 1 && ejections.indices.withLock { $0 } == [1])
        control.insert(1)
        #expect(read(control, 1) == 0b011)
    }

    @Test func aGuestEjectsNothingThatIsNotThere() {
        let control = make()
        write(control, 0, [.ejected, .inserting, .removing])
        write(control, 2, .ejected)
        write(control, 1, .present)
        #expect((0..<3).map { read(control, $0) } == [1, 0, 0])
        #expect(ejections.indices.withLock { $0 } == [])
    }
}
