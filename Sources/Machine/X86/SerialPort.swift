import Glibc
import LinuxSystem
import Synchronization

/// A 16550 serial port that can only send: the earliest console there is, for those who ask for it.
///
/// Every byte is an exit, so it is no console for every day. What the reader of `output` does not take is lost: the guest
/// waits for nobody.
final class SerialPort: BusDevice, @unchecked Sendable {
    static let ports: Range<UInt64> = 0x3f8..<0x400
    static let gsi: UInt32 = 4

    private enum Register {
        static let data: UInt64 = 0
        static let interruptEnable: UInt64 = 1
        static let interruptIdentity: UInt64 = 2
        static let lineControl: UInt64 = 3
        static let lineStatus: UInt64 = 5
        static let modemStatus: UInt64 = 6
        static let scratch: UInt64 = 7
    }

    private struct State {
        var interruptEnable: UInt8 = 0
        var lineControl: UInt8 = 0
        var scratch: UInt8 = 0
        var transmitterPending = false
    }

    let interrupt: SharedDescriptor
    private let output: SharedDescriptor
    private let state = Mutex(State())

    /// - Parameter output: a pipe or socket; sent to without waiting.
    init(output: SharedDescriptor) throws(SystemError) {
        self.output = output
        interrupt = try SharedDescriptor.event()
    }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        data[0] = state.withLock { state in
            switch offset {
            case Register.interruptEnable: return state.interruptEnable
            case Register.interruptIdentity:
                defer { state.transmitterPending = false }
                return state.transmitterPending ? 0x02 : 0x01
            case Register.lineControl: return state.lineControl
            case Register.lineStatus: return 0x60  // the transmitter is empty, always
            case Register.modemStatus: return 0xb0
            case Register.scratch: return state.scratch
            default: return 0
            }
        }
    }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        let value = data[0]
        let isPending = state.withLock { state -> Bool in
            // With the divisor latch open the first two registers are the speed, which nothing depends on.
            let isLatched = state.lineControl & 0x80 != 0
            switch offset {
            case Register.data where !isLatched:
                var byte = value
                _ = send(output.raw, &byte, 1, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            case Register.interruptEnable where !isLatched: state.interruptEnable = value & 0x0f
            case Register.lineControl: state.lineControl = value
            case Register.scratch: state.scratch = value
            default: return false
            }
            guard offset <= Register.interruptEnable, !isLatched, state.interruptEnable & 2 != 0 else { return false }
            state.transmitterPending = true
            return true
        }
        if isPending { interrupt.signal() }
    }
}
