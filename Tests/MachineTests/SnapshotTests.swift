import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Machine
@testable import Virtio

/// A state with everything that a state may have.
private func someSnapshot() -> MachineSnapshot {
    let vcpu = VCPUState(
        tscKHz: 2_000_000, parts: VCPUState.parts.map { [UInt8](repeating: 7, count: $0.size) },
        msrs: [.init(index: 0x10, value: 1 << 40), .init(index: 0x6e0, value: 3)])
    var console = SlotState(index: 0, deviceID: 3, status: 15)
    console.driverFeatures = 1 << 32
    console.configuration = [1, 2, 3, 4, 5, 6, 1, 0]
    console.deviceState = [2, 0, 1]
    console.queues = [
        .init(
            size: 256, isReady: true, isRunning: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000, position: 9)
    ]
    return MachineSnapshot(
        memoryBytes: 64 << 20, cpu: .init(), freeSlots: [2, 1],
        platform: PlatformState(
            cpuid: [[0, 0, 0, 13, 1, 2, 3], [1, 0, 0, 4, 5, 6, 7]],
            interruptControllers: (0..<3).map { [UInt8](repeating: $0, count: MemoryLayout<kvm_irqchip>.size) },
            clock: 123_456_789),
        vcpus: [vcpu, vcpu], slots: [console])
}

@Suite struct SnapshotCodingTests {
    @Test func aStateIsReadAsItWasWritten() throws {
        let snapshot = someSnapshot()
        let bytes = snapshot.encoded()
        #expect(bytes.count < MachineSnapshot.maximumSize)
        #expect(try MachineSnapshot(bytes) == snapshot)
    }

    /// Wherever it is cut off, and with bytes behind its end.
    @Test func aTruncatedStateIsRefused() throws {
        let bytes = someSnapshot().encoded()
        for count in stride(from: 0, to: bytes.count, by: 7) {
            #expect(throws: MachineError.self) { try MachineSnapshot(Array(bytes.prefix(count))) }
        }
        #expect(throws: MachineError("machine state, file: 1 bytes too many")) { try MachineSnapshot(bytes + [0]) }
    }

    @Test func otherFilesAndVersionsAreRefused() throws {
        var bytes = someSnapshot().encoded()
        #expect(throws: MachineError("machine state, file: not the state of a machine")) {
            try MachineSnapshot([UInt8](repeating: 0, count: 4096))
        }
        bytes[8] = 99
        #expect(throws: MachineError("machine state, file: version 99, not 4")) { try MachineSnapshot(bytes) }
    }

    /// Each byte of the first kilobyte, and numbers of sections, changed: a state or an error, never a trap.
    @Test func changedBytesNeverTrap() {
        let bytes = someSnapshot().encoded()
        var refused = 0
        for position in 0..<1024 {
            for value: UInt8 in [0, 1, 0x7f, 0xff] {
                var changed = bytes
                changed[position] = value
                do { _ = try MachineSnapshot(changed) } catch { refused += 1 }
            }
        }
        #expect(refused > 0)
    }

    @Test func aDevicesStateHasABound() throws {
        var snapshot = someSnapshot()
        snapshot.slots[0].deviceState = [UInt8](repeating: 5, count: SlotState.maximumDeviceState)
        #expect(try MachineSnapshot(snapshot.encoded()) == snapshot)
        snapshot.slots[0].deviceState.append(5)
        #expect(throws: MachineError("machine state, slot: a device state of 65537 bytes")) {
            try MachineSnapshot(snapshot.encoded())
        }
    }

    @Test func aSlotCantBeThereTwice() {
        var snapshot = someSnapshot()
        snapshot.freeSlots = [0]
        #expect(throws: MachineError("machine state, file: a slot stands there twice")) {
            try MachineSnapshot(snapshot.encoded())
        }
    }
}

@Suite(.serialized, .enabled(if: TinyKVM.isReady, "\(TinyKVM.obstacle ?? "")")) struct SnapshotTests {
    /// A file for the memory of a machine.
    private func memoryFile(_ machine: TinyVMM) throws -> SharedDescriptor {
        SharedDescriptor(try OwnedDescriptor.memory("saved", size: Int64(machine.vmm.vm.map.size)))
    }

    private func fillMemory(_ machine: TinyVMM, from file: SharedDescriptor) throws {
        for range in machine.vmm.vm.map.ranges {
            let count = machine.vmm.vm.memory.withBytes(at: range.address, count: Int(range.count)) {
                try? readAll(into: $0, from: file.raw, at: Int64(range.offset), "memory")
            }
            try #require(count == Int(range.count))
        }
    }

    @Test func aGuestGoesOnInAnotherMachine() throws {
        let first = try TinyVMM(TinyGuest.count, vcpus: 2)
        #expect(eventually { first.mark > 1000 })
        try first.pause()
        let saved = first.mark
        let memory = try memoryFile(first)
        let snapshot = try MachineSnapshot(first.vmm.save(memory: memory.raw).encoded())
        var facts = stat()
        #expect(fstat(memory.raw, &facts) == 0 && facts.st_blocks > 0)
        #expect(facts.st_blocks * 512 < 16 << 20, "pages of zeros are holes")
        let second = try TinyVMM(vcpus: 2)
        try fillMemory(second, from: memory)
        #expect(second.mark == saved)
        _ = try second.vmm.restore(snapshot)
        #expect(second.vmm.state == .running)
        #expect(eventually { second.mark > saved })
        // The first one is still there, and both go on apart.
        #expect(first.mark == saved)
        try first.vmm.resume()
        #expect(eventually { first.mark > saved })
        #expect(second.end.current == nil)
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let first = try TinyVMM(TinyGuest.count)
        let memory = try memoryFile(first)
        #expect(refusal { _ = try first.vmm.save(memory: memory.raw) } == "save: the machine is running")
        try first.pause()
        let snapshot = try first.vmm.save(memory: memory.raw)
        #expect(refusal { _ = try first.vmm.restore(snapshot) } == "restore: the machine is paused")

        func objection(to change: (inout MachineSnapshot) -> Void, vcpus: Int = 1) throws -> String {
            var changed = snapshot
            change(&changed)
            let machine = try TinyVMM(vcpus: vcpus)
            return refusal { _ = try machine.vmm.restore(changed) }
        }
        #expect(try objection(to: { $0.memoryBytes *= 2 }) == "the state is of 134217728 bytes of memory, not 67108864")
        #expect(
            try objection(to: { $0.cpu.nested = true })
                == "the state is of a machine with another CPU: host with virtualization, not host")
        #expect(try objection(to: { _ in }, vcpus: 2) == "the state has 1 vCPUs; the machine has 2")
        #expect(
            try objection(to: { $0.platform.cpuid[0][3] += 1 })
                == "the state is of another CPU: its CPUID differs from this one's")
        #expect(try objection(to: { $0.vcpus[0].tscKHz /= 2 }).contains("time stamp counter"))
        #expect(
            try objection(to: { $0.slots = [SlotState(index: 0, deviceID: 3, status: 0)] }).contains("MMIO slots [0]"))
    }
}
