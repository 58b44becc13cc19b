import CLinux
import Glibc
import LinuxSystem
import Testing
import VMMControl

/// What a server and a container's process on the host tell each other, where they are of different versions.
@Suite struct HostProcessMessageTests {
    @Test func anotherVersionIsRefusedByNameOnBothSides() throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let own = HostProcessMessage.version
        // `exit` with code 3, of the next version.
        let words: [UInt32] = [((own + 1) << 16 | 2).littleEndian, UInt32(3).littleEndian, 0]
        let bytes = words.withUnsafeBytes { Array($0) }
        #expect(write(ours.raw, bytes, bytes.count) == bytes.count)
        let error = #expect(throws: SystemError.self) { try HostProcessMessage.receive(over: theirs) }
        #expect(error?.description.contains("of version \(own + 1), where this program speaks version \(own)") == true)
        // The answer has the version of the side that has refused.
        guard case .failed(let number)? = try HostProcessMessage.receive(over: ours)?.message else {
            Issue.record("no answer")
            return
        }
        #expect(number == EPROTONOSUPPORT)
    }
}
