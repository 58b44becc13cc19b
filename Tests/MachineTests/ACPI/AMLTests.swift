import Testing

@testable import Machine

/// Small pieces against bytes encoded by hand from the specification's grammar.
@Suite struct AMLTests {
    @Test func integersAreAsShortAsCanBe() {
        #expect(AML.integer(0).bytes == [0x00])
        #expect(AML.integer(1).bytes == [0x01])
        #expect(AML.integer(2).bytes == [0x0A, 0x02])
        #expect(AML.integer(0xFF).bytes == [0x0A, 0xFF])
        #expect(AML.integer(0x100).bytes == [0x0B, 0x00, 0x01])
        #expect(AML.integer(0xFFFF).bytes == [0x0B, 0xFF, 0xFF])
        #expect(AML.integer(0x1_0000).bytes == [0x0C, 0x00, 0x00, 0x01, 0x00])
        #expect(AML.integer(0xFFFF_FFFF).bytes == [0x0C, 0xFF, 0xFF, 0xFF, 0xFF])
        #expect(AML.integer(0x1_0000_0000).bytes == [0x0E, 0, 0, 0, 0, 1, 0, 0, 0])
    }

    @Test func paths() {
        #expect(AML.path("\\").bytes == [0x5C, 0x00])
        #expect(AML.path("_HID").bytes == Array("_HID".utf8))
        #expect(AML.path("GED").bytes == Array("GED_".utf8))
        #expect(AML.path("\\_SB").bytes == Array("\\_SB_".utf8))
        #expect(AML.path("\\_SB.PWRB").bytes == [0x5C, 0x2E] + Array("_SB_PWRB".utf8))
        #expect(AML.path("A.B.C").bytes == [0x2F, 0x03] + Array("A___B___C___".utf8))
    }

    @Test func data() {
        #expect(AML.string("ab").bytes == [0x0D, 0x61, 0x62, 0x00])
        #expect(AML.buffer([7, 8]).bytes == [0x11, 0x05, 0x0A, 0x02, 7, 8])
        #expect(AML.package([.zero, .integer(5)]).bytes == [0x12, 0x05, 0x02, 0x00, 0x0A, 0x05])
        // P, N, P are 16, 14, 16: 10000 01110 10000 and 0x0C0C, highest byte first.
        #expect(AML.eisaID("PNP0C0C").bytes == [0x0C, 0x41, 0xD0, 0x0C, 0x0C])
        #expect(AML.eisaID("PNP0501").bytes == [0x0C, 0x41, 0xD0, 0x05, 0x01])
    }

    /// The length counts its own bytes; at each bound it grows by one.
    @Test(arguments: [
        (61, [0x3E] as [UInt8]), (62, [0x3F]), (63, [0x41, 0x04]), (4093, [0x4F, 0xFF]), (4094, [0x81, 0x00, 0x01]),
        (1_048_572, [0x8F, 0xFF, 0xFF]), (1_048_573, [0xC1, 0x00, 0x00, 0x01]),
    ])
    func lengths(size: Int, length: [UInt8]) {
        // A scope whose name takes 4 bytes, around an untouched rest.
        let content = AML([UInt8](repeating: 0xA3, count: size - 4))
        let scope = AML.scope("ABCD", [content])
        #expect(Array(scope.bytes.prefix(1 + length.count)) == [0x10] + length)
        #expect(scope.bytes.count == 1 + length.count + size)
    }

    @Test func objects() {
        #expect(AML.name("_UID", .one).bytes == [0x08] + Array("_UID".utf8) + [0x01])
        #expect(AML.device("DEV", []).bytes == [0x5B, 0x82, 0x05] + Array("DEV_".utf8))
        #expect(AML.method("_EVT", arguments: 1, []).bytes == [0x14, 0x06] + Array("_EVT".utf8) + [0x01])
        #expect(
            AML.operationRegion("REGS", .ports, at: 0x604, size: 1).bytes
                == [0x5B, 0x80] + Array("REGS".utf8) + [0x01, 0x0B, 0x04, 0x06, 0x01])
        #expect(
            AML.byteField("REGS", ["ONE", "TWO"]).bytes
                == [0x5B, 0x81, 0x10] + Array("REGS".utf8) + [0x01] + Array("ONE_".utf8) + [0x08]
                + Array("TWO_".utf8) + [0x08])
    }

    @Test func statements() {
        #expect(AML.store(.path("EVNT"), in: .local0).bytes == [0x70] + Array("EVNT".utf8) + [0x60])
        #expect(AML.notify("DEV", 0x80).bytes == [0x86] + Array("DEV_".utf8) + [0x0A, 0x80])
        #expect(
            AML.if(.and(.local0, .integer(2)), [.store(.zero, in: .local0)]).bytes
                == [0xA0, 0x09, 0x7B, 0x60, 0x0A, 0x02, 0x00, 0x70, 0x00, 0x60])
    }

    @Test func resources() {
        let template = AML.resources([
            .memory(address: 0xC000_1000, size: 0x1000), .ports(0x3F8, count: 8), .interrupt(gsi: 5),
        ])
        let memory: [UInt8] = [0x86, 0x09, 0x00, 0x01, 0x00, 0x10, 0x00, 0xC0, 0x00, 0x10, 0x00, 0x00]
        let ports: [UInt8] = [0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x01, 0x08]
        let interrupt: [UInt8] = [0x89, 0x06, 0x00, 0x03, 0x01, 0x05, 0x00, 0x00, 0x00]
        #expect(template.bytes == [0x11, 0x22, 0x0A, 0x1F] + memory + ports + interrupt + [0x79, 0x00])
    }
}
