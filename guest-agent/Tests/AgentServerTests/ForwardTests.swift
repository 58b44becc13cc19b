import Testing

@testable import AgentServer

@Suite struct ForwardTests {
    @Test func portsThatLoopbackReaches() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        let v4 = """
               0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
               1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
               2: 0200630A:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
               3: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4 1
               4: 0B00007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1
            """
        #expect(Forward.listeningPorts(head + v4) == [80, 8080])
        let v6 = """
               0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000
               1: 00000000000000000000000001000000:01BC 00000000000000000000000000000000:0000 0A 00000000:00000000
               2: 0000000000000000FFFF00000100007F:01BD 00000000000000000000000000000000:0000 0A 00000000:00000000
               3: 000099FD000000000000000002000000:01BE 00000000000000000000000000000000:0000 0A 00000000:00000000
            """
        #expect(Forward.listeningPorts(head + v6) == [443, 444, 445])
        #expect(Forward.listeningPorts("").isEmpty && Forward.listeningPorts("x\n1: zz 0 0A").isEmpty)
    }
}
