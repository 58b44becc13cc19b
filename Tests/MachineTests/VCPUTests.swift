import Glibc
import LinuxSystem
import Testing

@testable import Machine

@Suite(.serialized, .enabled(if: TinyKVM.isReady, "\(TinyKVM.obstacle ?? "")")) struct ProcessorTests {
    @Test func portAccessesReachTheirDevices() throws {
        let machine = try TinyMachine(TinyGuest.ports)
        let device = Recorder(answer: [0xfe, 0xff, 0, 0])
        try machine.ports.add(device, at: 0x1234..<0x1238)
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
        try machine.memory.add(device, at: 0xd200_0000..<0xd200_1000)
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
        let (processor, raw) = (machine.processor, event.descriptor.raw)
        try machine.vm.connect(raw, toInterrupt: 9)
        let device = Recorder { access in
            if access.bytes == [2] { return processor.stop() }
            // The guest is about to halt; the interrupt comes when it surely has.
            do {
                try startThread("wake") {
                    usleep(20_000)
                    var one: UInt64 = 1
                    _ = write(raw, &one, 8)
                }
            } catch { Issue.record("\(error)") }
        }
        try machine.ports.add(device, at: 0x1234..<0x1235)
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
        try machine.memory.add(device, at: 0xd200_0000..<0xd200_1000)
        #expect(try machine.run() == .stopped)
        #expect(device.writes.count == 4)
        let signalled = event.drain()
        #expect(signalled)
    }

    @Test func aTripleFaultIsNamed() throws {
        #expect(try TinyMachine(TinyGuest.tripleFault).run() == .tripleFault)
    }
}
