import Glibc
import GuestKernel
public import LinuxSystem
import Virtio

/// What a machine boots: a kernel, an initial file system and a command line, each still outside the guest.
public struct BootImage: Sendable {
    public var kernel: SharedDescriptor
    public var initramfs: SharedDescriptor?
    /// Without a final NUL.
    public var commandLine: [UInt8]

    public init(kernel: SharedDescriptor, initramfs: SharedDescriptor?, commandLine: [UInt8]) {
        self.kernel = kernel
        self.initramfs = initramfs
        self.commandLine = commandLine
    }

    /// Puts everything into the guest's memory, with the tables that tell the kernel of it.
    ///
    /// Source: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
    ///
    /// - Returns: the address where the kernel starts.
    func load(into memory: GuestMemory, _ map: MemoryMap) throws -> UInt64 {
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
        let files = try loadInitramfs(
            into: memory, above: kernelEnd, below: min(image.initramfsLimit, map.lowMemoryEnd))
        try write(
            commandLine + [0], at: MemoryMap.commandLine, memory, limit: MemoryMap.commandLineLimit, "command line")
        let parameters = BootParameters(
            setupHeader: image.setupHeader, commandLineCount: commandLine.count, initramfs: files, map: map)
        try write(parameters.page, at: MemoryMap.bootParameters, memory, limit: 4096, "boot parameters")
        return image.entry
    }

    /// As high as possible: the kernel unpacks from the bottom of memory upwards.
    private func loadInitramfs(
        into memory: GuestMemory, above low: UInt64, below high: UInt64
    ) throws -> (address: UInt64, count: UInt64)? {
        guard let initramfs else { return nil }
        var facts = stat()
        try check("fstat", "initramfs", fstat(initramfs.raw, &facts))
        guard facts.st_mode & S_IFMT == S_IFREG else { throw MachineError("initramfs: not a regular file") }
        let count = UInt64(clamping: facts.st_size)
        guard count > 0 else { throw MachineError("initramfs: empty") }
        guard low <= high, count <= high - low, (high - count) & ~0xfff >= low else {
            throw MachineError("initramfs: its \(count) bytes do not fit between the kernel and the end of memory")
        }
        let address = (high - count) & ~0xfff
        try read(initramfs, "initramfs", 0, count, to: address, memory)
        return (address, count)
    }

    private func read(
        _ file: SharedDescriptor, _ name: String, _ offset: UInt64, _ count: UInt64, to address: UInt64,
        _ memory: GuestMemory
    ) throws {
        if count == 0 { return }
        let done: Void? = try memory.withBytes(at: address, count: Int(count)) { bytes in
            var done = 0
            while done < bytes.count {
                let got = try retrying("read", name) {
                    pread(
                        file.raw, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(offset) + off_t(done))
                }
                if got == 0 { throw MachineError("\(name): truncated while it was read") }
                done += got
            }
        }
        if done == nil { throw MachineError("\(name): \(count) bytes at \(hexadecimal(address)) are outside memory") }
    }

    private func write(
        _ bytes: [UInt8], at address: UInt64, _ memory: GuestMemory, limit: Int, _ name: String
    ) throws {
        guard bytes.count <= limit else { throw MachineError("\(name): \(bytes.count) bytes are more than \(limit)") }
        try memory.write(bytes, at: address, name)
    }
}

extension GuestMemory {
    /// Copies `bytes` to `address`; `name` is for the error.
    func write(_ bytes: [UInt8], at address: UInt64, _ name: String) throws(MachineError) {
        guard withBytes(at: address, count: bytes.count, { $0.copyBytes(from: bytes) }) != nil else {
            throw MachineError("\(name): \(bytes.count) bytes at \(hexadecimal(address)) are outside memory")
        }
    }
}

func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
