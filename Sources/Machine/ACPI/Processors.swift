/// The vCPUs of a machine that can get more of them, in AML (ACPI 6.3, 8.4): a device each, whose methods read and write its register
/// (`ACPICPUStatus`). A machine whose vCPUs are all there from the start on has none: the MADT tells of them.
struct Processors {
    private let count: Int

    init(_ configuration: ACPIConfiguration) {
        count = configuration.maximumCPUCount > configuration.cpuCount ? configuration.maximumCPUCount : 0
    }

    /// What belongs into the scope `\_SB`.
    var devices: [AML] {
        if count == 0 { return [] }
        let registers: [AML] = [
            .operationRegion("CPRG", .ports, at: UInt64(ACPIPort.processors), size: UInt64(count)),
            .byteField("CPRG", (0..<count).map(register)),
        ]
        return registers + (0..<count).map(device)
    }

    /// What the event device does at `ACPIEvents.processors`: it tells each vCPU's driver what its register says. 1 is "look whether it
    /// is there", 3 is "let go of it" (5.6.6).
    var pass: [AML] {
        if count == 0 { return [] }
        let all = (0..<count).flatMap { index in
            [tell(.inserting, 1, index), tell(.removing, 3, index)]
        }
        return [.if(.and(.local0, .integer(UInt64(ACPIEvents.processors.rawValue))), all)]
    }

    private func tell(_ status: ACPICPUStatus, _ value: UInt64, _ index: Int) -> AML {
        let bit = AML.integer(UInt64(status.rawValue))
        let register = AML.path("\\_SB.\(register(index))")
        // First the register, in which the driver may set another bit soon.
        return .if(.and(register, bit), [.store(bit, in: register), .notify("\\_SB.\(name(index))", value)])
    }

    private func device(_ index: Int) -> AML {
        let number = AML.integer(UInt64(index))
        let register = AML.path(register(index))
        let isPresent = AML.and(register, .integer(UInt64(ACPICPUStatus.present.rawValue)))
        var content: [AML] = [
            .name("_HID", .string("ACPI0007")),
            .name("_UID", number),
            // Present, enabled, shown and functioning (6.3.7).
            .method("_STA", arguments: 0, [.if(isPresent, [.return(.integer(0xF))]), .return(.zero)]),
            // The interrupt controller as the MADT has it, enabled (6.2.10).
            .name("_MAT", .buffer(MADT.localAPIC(UInt32(index), isEnabled: true))),
        ]
        if index > 0 {
            let ejected = AML.integer(UInt64(ACPICPUStatus.ejected.rawValue))
            content.append(.method("_EJ0", arguments: 1, [.store(ejected, in: register)]))
        }
        return .device(name(index), content)
    }

    private func name(_ index: Int) -> String { "C" + digits(index) }
    private func register(_ index: Int) -> String { "R" + digits(index) }

    private func digits(_ index: Int) -> String {
        let text = String(index, radix: 16, uppercase: true)
        return String(repeating: "0", count: 3 - text.count) + text
    }
}
