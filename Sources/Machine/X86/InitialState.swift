import CLinux
import Virtio

/// How the first vCPU starts: the register sets that KVM is given, and the tables that they point to.
public struct InitialState: Sendable {
    var registers = kvm_regs()
    var special = kvm_sregs()
    /// Bytes, by guest-physical address, that the state refers to.
    var tables: [(address: UInt64, bytes: [UInt8])] = []

    /// 64-bit mode with the lowest 4 GiB mapped to themselves, as Linux is to be entered. RSI has the boot parameters' address
    /// (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    ///
    /// - Parameters:
    ///   - entry: guest-physical address of the first instruction.
    ///   - initial: the special registers of a new vCPU.
    public static func linux(entry: UInt64, _ initial: kvm_sregs) -> InitialState {
        var state = InitialState()
        state.registers.rflags = 2
        state.registers.rip = entry
        state.registers.rsp = MemoryMap.bootStack
        state.registers.rbp = MemoryMap.bootStack
        state.registers.rsi = MemoryMap.bootParameters
        state.special = initial
        state.special.enterLongMode()
        state.tables = [(MemoryMap.descriptorTable, descriptorTable), (MemoryMap.pageTables, pageTables)]
        return state
    }

    /// Flat code and data segments at selectors 0x8 and 0x10, a task state segment at 0x18.
    private static let descriptorTable = bytes([0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff])

    /// A PML4 with one entry, a page directory pointer table with four, and four page directories of 2 MiB pages.
    private static let pageTables: [UInt8] = {
        let present: UInt64 = 3
        let large: UInt64 = 0x80
        func table(_ entries: [UInt64]) -> [UInt64] { entries + [UInt64](repeating: 0, count: 512 - entries.count) }
        let next = MemoryMap.pageTables + 0x1000
        return bytes(
            table([next | present])
                + table((1...4).map { next + 0x1000 * UInt64($0) | present })
                + (0..<2048).map { UInt64($0) << 21 | large | present })
    }()

    private static func bytes(_ values: [UInt64]) -> [UInt8] {
        values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    }
}

extension kvm_sregs {
    /// Flat 64-bit segments, paging on.
    fileprivate mutating func enterLongMode() {
        func segment(_ selector: UInt16, type: UInt8, system: UInt8, long: UInt8, wide: UInt8) -> kvm_segment {
            var segment = kvm_segment()
            segment.limit = 0xffff_ffff
            segment.selector = selector
            segment.type = type
            segment.present = 1
            segment.s = system
            segment.l = long
            segment.db = wide
            segment.g = 1
            return segment
        }
        gdt.base = MemoryMap.descriptorTable
        gdt.limit = 4 * 8 - 1
        idt.base = 0
        idt.limit = 0
        cs = segment(0x8, type: 0xb, system: 1, long: 1, wide: 0)
        let data = segment(0x10, type: 3, system: 1, long: 0, wide: 1)
        (ds, es, fs, gs, ss) = (data, data, data, data, data)
        tr = segment(0x18, type: 0xb, system: 0, long: 0, wide: 0)
        cr3 = MemoryMap.pageTables
        cr4 |= 1 << 5  // PAE
        cr0 |= 1 << 31 | 1  // paging, protected mode
        efer |= 1 << 8 | 1 << 10  // long mode, enabled and active
    }
}
