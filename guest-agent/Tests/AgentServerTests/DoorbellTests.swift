import Testing

@testable import AgentServer

@Suite struct DoorbellTests {
    @Test func theNamedPortIsWrittenOnce() {
        var written: [[Int]] = []
        let write = { (port: UInt16, value: UInt8) -> Int32 in
            written.append([Int(port), Int(value)])
            return 0
        }
        Doorbell.ring("console=hvc0 martlet.doorbell=0xb80 quiet\n", write: write)
        #expect(written == [[0xb80, 0x52]])
        // Under QEMU and with hosts that do not wait for it nothing may be written.
        Doorbell.ring("console=hvc0 quiet\n", write: write)
        #expect(written.count == 1)
    }
}
