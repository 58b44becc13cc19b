import Glibc
import GuestKernel
import LinuxSystem
import Testing

@testable import Machine
@testable import Virtio

@Suite struct BootTests {
    @Test func memoryLeavesAGapBelow4GiB() throws {
        #expect(try MemoryMap(size: 64 << 20).ranges == [.init(address: 0, count: 64 << 20, offset: 0)])
        #expect(try MemoryMap(size: 3 << 30).ranges.count == 1)
        #expect(
            try MemoryMap(size: 5 << 30).ranges == [
                .init(address: 0, count: 3 << 30, offset: 0), .init(address: 4 << 30, count: 2 << 30, offset: 3 << 30),
            ])
        for wrong in [0, 63 << 20, (64 << 20) + 1, 65 << 30] as [UInt64] {
            #expect(throws: MachineError.self) { try MemoryMap(size: wrong) }
        }
    }

    @Test func memoryThatIsPluggedLiesAboveTheRootImage() throws {
        let map = try MemoryMap(size: 5 << 30, hotplug: 1 << 30)
        #expect(map.rootImage == 6 << 30)
        #expect(map.hotplug == .init(address: 7 << 30, count: 1 << 30, offset: 5 << 30))
        #expect(map.fileSize == 6 << 30 && map.banks.count == 3 && map.ranges.count == 2)
        let (start, block): (UInt64, UInt64) = (7 << 30, 2 << 20)
        let bank = map.hotplugBank(at: start + block..<start + 2 * block)
        #expect(bank == .init(address: start + block, count: block, offset: (5 << 30) + block))
        #expect(map.hotplugBank(at: start - block..<start + block) == nil)
        #expect(try MemoryMap(size: 64 << 20).hotplug == nil)
        for wrong in [1, 64 << 20, 65 << 30] as [UInt64] {
            #expect(throws: MachineError.self) { try MemoryMap(size: 64 << 20, hotplug: wrong) }
        }
        // The guest is not told of it as memory.
        #expect(!BootParameters.addressMap(map).contains { $0.address >= 6 << 30 })
    }

    private func text(_ bytes: [UInt8]) throws -> SharedDescriptor {
        let file = try OwnedDescriptor.memory("boot test", size: 0)
        #expect(write(file.raw, bytes, bytes.count) == bytes.count)
        return SharedDescriptor(file)
    }

    private func load(_ kernel: [UInt8], initramfs: [UInt8]? = nil, commandLine: Int = 10, mebibytes: UInt64 = 64)
        throws
        -> (GuestMemory, UInt64)
    {
        let map = try MemoryMap(size: mebibytes << 20)
        let file = try OwnedDescriptor.memory("boot test", size: Int64(map.size))
        let memory = try map.map(file: file.raw)
        let image = BootImage(
            kernel: try text(kernel), initramfs: try initramfs.map(text),
            commandLine: [UInt8](repeating: UInt8(ascii: "x"), count: commandLine))
        return (memory, try image.loadLinux(into: memory, map))
    }

    private func bytes(_ memory: GuestMemory, _ address: UInt64, _ count: Int) -> [UInt8] {
        memory.withBytes(at: address, count: count) { Array($0) } ?? []
    }

    @Test func everythingIsWhereTheKernelIsToldItIs() throws {
        let files = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        let (memory, entry) = try load(TinyGuest.elf(TinyGuest.reset), initramfs: files)
        #expect(entry == TinyGuest.address)
        #expect(bytes(memory, TinyGuest.address, TinyGuest.reset.count) == TinyGuest.reset)
        let page = bytes(memory, MemoryMap.bootParameters, 4096)
        func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(page[offset + $1]) << (8 * UInt32($1)) } }
        #expect(word(0x202) == 0x5372_6448)
        #expect(word(0x228) == UInt32(MemoryMap.commandLine))
        #expect(bytes(memory, MemoryMap.commandLine, 11) == Array("xxxxxxxxxx\0".utf8))
        #expect(word(0x21c) == 10_000)
        #expect(word(0x218) % 4096 == 0)
        #expect(bytes(memory, UInt64(word(0x218)), 10_000) == files)
        #expect(page[0x1e8] == 4)
    }

    @Test func theMapNamesEveryByteOnce() throws {
        for size in [64 << 20, 3 << 30, 8 << 30] as [UInt64] {
            let map = try MemoryMap(size: size)
            let entries = BootParameters.addressMap(map)
            for (low, high) in zip(entries, entries.dropFirst()) { #expect(low.address + low.count <= high.address) }
            let usable = entries.filter { $0.kind == .memory }.reduce(0) { $0 + $1.count }
            #expect(usable > size - (1 << 20))
            #expect(entries.last.map { $0.address + $0.count } == map.ranges.last?.end)
        }
    }

    @Test func whatDoesNotFitIsRefused() throws {
        func refusal(_ body: () throws -> (GuestMemory, UInt64)) -> String {
            do { return "\(try body().1)" } catch { return "\(error)" }
        }
        var elf = TinyGuest.elf(TinyGuest.reset)
        #expect(refusal { try load(Array(elf.prefix(100))) }.contains("truncated"))
        #expect(refusal { try load(Array("#!/bin/sh".utf8)) }.contains("neither"))
        #expect(refusal { try load(elf, initramfs: []) }.contains("initramfs: empty"))
        #expect(refusal { try load(elf, initramfs: [UInt8](repeating: 0, count: 64 << 20)) }.contains("do not fit"))
        #expect(refusal { try load(elf, commandLine: 0x1_0000) }.contains("command line"))
        // The segment's place: below 1 MiB, beyond memory, around the end of the address space.
        for address in [0, 0xf_ffff, (64 << 20) - 4095, 1 << 40, .max - 4094] as [UInt64] {
            for (index, byte) in withUnsafeBytes(of: address.littleEndian, Array.init).enumerated() {
                elf[88 + index] = byte
            }
            #expect(refusal { try load(elf) }.contains("guest kernel"), "\(address)")
        }
        // An entry outside of what was loaded.
        elf = TinyGuest.elf(TinyGuest.reset)
        elf[26] = 0x20
        #expect(refusal { try load(elf) }.contains("entry"))
    }
}
