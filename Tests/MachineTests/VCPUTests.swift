import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Machine

@Suite(.serialized, .enabled(if: TinyKVM.isReady, "\(TinyKVM.obstacle ?? "")")) struct VCPUTests {
    @Test func portAccessesReachTheirDevices() throws {
        let machine = try TinyMachine(TinyGuest.ports)
        let device = Recorder(answer: [0xfe, 0xff, 0, 0])
        try machine.buses.ports.add(device, at: 0x1234..<0x1238)
        #expect(try machine.run() == .stopped)
        #expect(
            device.writes == [
                .init(0, [0xab]), .init(0, [0xef, 0xbe]), .init(0, [4, 3, 2, 1]), .init(0, [0xff, 0xff, 0, 0]),
            ])
        // Nobody is at port 0x9999.
        #expect(machine.last.writes == [.init(0, [0xff, 0xff])])
    }

    @Test func memoryAccessesOfEachSizeReachTheirDevices() throws {
        let machine = try TinyMachine(TinyGuest.memory)
        let device = Recorder(answer: [9, 0, 0, 0])
        try machine.buses.memory.add(device, at: 0xd200_0000..<0xd200_1000)
        #expect(try machine.run() == .stopped)
        #expect(
            device.writes == [
                .init(0, [0x11]), .init(4, [0x22, 0x22]), .init(8, [0x33, 0x33, 0x33, 0x33]),
                .init(16, [UInt8](repeating: 0x44, count: 8)), .init(28, [10, 0, 0, 0]),
            ])
        #expect(machine.last.writes == [.init(0, [0xff, 0xff, 0xff, 0xff])])
    }

    @Test func aHaltedGuestWakesUpByAnEventfd() throws {
        let machine = try TinyMachine(TinyGuest.interrupt)
        let event = try EventDescriptor()
        let (vcpu, raw) = (machine.vcpu, event.descriptor.raw)
        try machine.vm.connect(raw, toInterrupt: 9)
        let device = Recorder { access in
            if access.bytes == [2] { return vcpu.request(.stop) }
            // The guest is about to halt; the interrupt comes when it surely has.
            do {
                try startThread("wake") {
                    usleep(20_000)
                    var one: UInt64 = 1
                    _ = write(raw, &one, 8)
                }
            } catch { Issue.record("\(error)") }
        }
        try machine.buses.ports.add(device, at: 0x1234..<0x1235)
        let end = try machine.run()
        #expect(end == .stopped)
        #expect(device.writes == [.init(0, [1]), .init(0, [2])])
        withExtendedLifetime(event) {}
    }

    @Test func aKickWithoutADeviceIsAnEventfdsSignal() throws {
        // The guest's write of 0x33333333 at +8 signals the eventfd and leaves no trace on the bus.
        let machine = try TinyMachine(TinyGuest.memory)
        let event = try EventDescriptor()
        try machine.vm.connect(write: 0x3333_3333, at: 0xd200_0008, to: event.descriptor.raw)
        let device = Recorder(answer: [9, 0, 0, 0])
        try machine.buses.memory.add(device, at: 0xd200_0000..<0xd200_1000)
        #expect(try machine.run() == .stopped)
        #expect(device.writes.count == 4)
        let signalled = event.drain()
        #expect(signalled)
    }

    @Test func aTripleFaultHasItsRegisters() throws {
        guard case .tripleFault(let registers?) = try TinyMachine(TinyGuest.tripleFault).run() else {
            Issue.record("no triple fault with registers")
            return
        }
        // Where the CPU keeps them.
        if !registers.areReset {
            #expect(registers.rip == TinyGuest.address + 7)
            #expect(registers.cr3 == MemoryMap.pageTables)
            #expect("\(registers)".contains("rip 0x100007"))
        }
    }

    @Test func registersAreNamedForWhatTheySay() {
        var general = kvm_regs()
        (general.rip, general.rsp, general.rflags) = (0xffff_ffff_8100_0000, 0x8ff0, 0x46)
        var special = kvm_sregs()
        (special.cr0, special.cr2, special.cr3, special.cr4) = (0x8000_0011, 0xdead_0000, 0x9000, 0x20)
        var events = kvm_vcpu_events()
        #expect(
            "\(VCPURegisters(general, special, events))"
                == "rip 0xffffffff81000000, rsp 0x8ff0, rflags 0x46, cr0 0x80000011, cr2 0xdead0000, cr3 0x9000, cr4 0x20"
        )
        events.exception.injected = 1
        events.exception.nr = 14
        events.exception.has_error_code = 1
        events.exception.error_code = 2
        #expect(
            "\(VCPURegisters(general, special, events))".hasPrefix(
                "rip 0xffffffff81000000, exception 14 (page fault) error 0x2, rsp"))
        general.rip = 0xfff0
        special.cs.selector = 0xf000
        #expect("\(VCPURegisters(general, special, events))".contains("were reset"))
    }
}
