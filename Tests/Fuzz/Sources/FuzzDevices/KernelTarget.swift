import FuzzSupport
import Glibc
import GuestKernel
import LinuxSystem

@testable import Machine

/// Headers of a kernel, and the loading of what they say into a machine of 64 MiB.
final class KernelTarget: FuzzTarget {
    private let file: SharedDescriptor
    private let initramfs: SharedDescriptor
    private let map: MemoryMap
    private let memory: OwnedDescriptor

    init() throws {
        file = SharedDescriptor(try OwnedDescriptor.memory("kernel", size: 0))
        initramfs = SharedDescriptor(try OwnedDescriptor.memory("initramfs", size: 0))
        map = try MemoryMap(size: 64 << 20)
        memory = try OwnedDescriptor.memory("guest", size: Int64(map.size))
    }

    /// Input: how long each file is, the length of the command line, then the kernel: bytes as they are, or the fields of an
    /// ELF file or a bzImage.
    func run(_ input: inout Input) throws {
        let size = input.byte()
        ftruncate(initramfs.raw, Int(input.word()) << Int(input.byte() % 12))
        let commandLine = [UInt8](repeating: UInt8(ascii: "x"), count: Int(input.word()) % 4096)
        let kind = input.byte()
        let bytes = kind < 80 ? input.rest() : kind < 180 ? elf(&input) : bzImage(&input)
        ftruncate(file.raw, 0)
        bytes.withUnsafeBytes { _ = pwrite(file.raw, $0.baseAddress, $0.count, 0) }
        // The rest of a file are zeroes.
        ftruncate(file.raw, bytes.count + Int(size) * 512)
        let image = try KernelImage(file: file.raw, name: "fuzz")
        require(!image.segments.isEmpty, "a kernel without segments")
        for segment in image.segments {
            require(segment.fileCount <= segment.memoryCount, "\(segment)")
            require(segment.fileOffset + segment.fileCount <= UInt64(bytes.count) + UInt64(size) * 512, "\(segment)")
        }
        let guest = try map.map(file: memory.raw)
        _ = try BootImage(kernel: file, initramfs: size & 1 == 0 ? initramfs : nil, commandLine: commandLine)
            .loadLinux(into: guest, map)
    }

    /// The right value mostly.
    private func field<Number: FixedWidthInteger & BitwiseCopyable>(_ right: Number, _ input: inout Input) -> [UInt8] {
        wire(input.byte() < 230 ? right : Number(truncatingIfNeeded: input.number64()))
    }

    private func elf(_ input: inout Input) -> [UInt8] {
        let count = UInt16(1 + input.byte() % 4)
        var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        bytes += field(2 as UInt16, &input) + field(62 as UInt16, &input) + wire(1 as UInt32)
        bytes += field(0x20_0000 as UInt64, &input) + field(64 as UInt64, &input) + wire(0 as UInt64)
        bytes += wire(0 as UInt32) + wire(64 as UInt16) + field(56 as UInt16, &input) + field(count, &input)
        bytes += [UInt8](repeating: 0, count: 6)
        for _ in 0..<count {
            let address = 0x20_0000 + UInt64(input.byte()) << 12
            let size = UInt64(input.word())
            bytes += field(1 as UInt32, &input) + wire(7 as UInt32) + field(UInt64(input.byte()), &input)
            bytes += wire(address) + field(address, &input) + field(size, &input)
            bytes += field(size + UInt64(input.byte()), &input) + wire(4096 as UInt64)
        }
        return bytes + input.take(64)
    }

    private func bzImage(_ input: inout Input) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 0x290)
        func put(_ field: [UInt8], at offset: Int) { bytes.replaceSubrange(offset..<offset + field.count, with: field) }
        put([input.byte() % 8], at: 0x1f1)
        put(field(UInt32(input.word()), &input), at: 0x1f4)
        put([input.byte()], at: 0x201)
        put(wire(0x5372_6448 as UInt32), at: 0x202)
        put(field(0x020c as UInt16, &input), at: 0x206)
        put(field(0x7fff_ffff as UInt32, &input), at: 0x22c)
        put(field(1 as UInt16, &input), at: 0x236)
        put(field(0x100_0000 as UInt64, &input), at: 0x258)
        put(field(UInt32(input.word()) << 8, &input), at: 0x260)
        return bytes + input.take(64)
    }
}
