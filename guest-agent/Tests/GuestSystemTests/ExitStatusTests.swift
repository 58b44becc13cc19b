import GuestSystem
import Testing

@Suite struct ExitStatusTests {
    @Test func everyExitCodeComesThrough() {
        for code in 0...255 {
            #expect(ExitStatus(waitStatus: Int32(code) << 8)?.code == UInt32(code))
        }
    }

    @Test func aSignalIs128AndItsNumber() {
        for signal in 1...64 {
            let dumped = Int32(signal) | 0x80
            #expect(ExitStatus(waitStatus: Int32(signal))?.code == 128 + UInt32(signal))
            #expect(ExitStatus(waitStatus: dumped)?.code == 128 + UInt32(signal))
        }
    }

    @Test func aStopIsNoEnd() {
        #expect(ExitStatus(waitStatus: 0x137f) == nil)
    }
}
