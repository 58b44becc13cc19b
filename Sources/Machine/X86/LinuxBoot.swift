import GuestKernel
import LinuxSystem
import Virtio

extension BootImage {
    /// Loads everything into the guest's memory, with the parameters that describe it to the kernel.
    ///
    /// Source: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
    ///
    /// - Returns: the address where the kernel starts.
    func loadLinux(into memory: GuestMemory, _ map: MemoryMap) throws -> UInt64 {
        let image = try KernelImage(file: kernel.raw, name: "image")
        for (number, segment) in image.segments.enumerated() {
            guard segment.address >= MemoryMap.highStart, segment.address + segment.memoryCount <= map.lowMemoryEnd
            else {
                throw MachineError(
                    "guest kernel: segment \(number), \(segment.memoryCount) bytes at \(hexadecimal(segment.address)), "
                        + "does not fit the \(map.size >> 20) MiB of the machine")
            }
            try read(kernel, "guest kernel", segment.fileOffset, segment.fileCount, to: segment.address, memory)
        }
        guard image.segments.contains(where: { $0.address <= image.entry && image.entry < $0.address + $0.memoryCount })
        else { throw MachineError("guest kernel: its entry \(hexadecimal(image.entry)) is in none of its segments") }
        let kernelEnd = image.segments.map { $0.address + $0.memoryCount }.max() ?? 0
        memory.keepSparsePartsSmall(kernelEnd: kernelEnd)
        let files = try loadInitramfs(
            into: memory, above: kernelEnd, below: min(image.initramfsLimit, map.lowMemoryEnd))
        try write(
            commandLine + [0], at: MemoryMap.commandLine, memory, limit: MemoryMap.commandLineLimit, "command line")
        let parameters = BootParameters(
            setupHeader: image.setupHeader, commandLineCount: commandLine.count, initramfs: files, map: map)
        try write(parameters.page, at: MemoryMap.bootParameters, memory, limit: 4096, "boot parameters")
        return image.entry
    }

    private func write(
        _ bytes: [UInt8], at address: UInt64, _ memory: GuestMemory, limit: Int, _ name: String
    ) throws {
        guard bytes.count <= limit else { throw MachineError("\(name): \(bytes.count) bytes are more than \(limit)") }
        try memory.write(bytes, at: address, name)
    }
}
