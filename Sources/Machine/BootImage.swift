import Glibc
public import LinuxSystem
import Virtio

/// What a machine boots: a kernel, an initial file system and a command line, each still outside the guest.
public struct BootImage: Sendable {
    public var kernel: SharedDescriptor
    public var initramfs: SharedDescriptor?
    /// Without a final NUL.
    public var commandLine: [UInt8]

    /// - Parameters:
    ///   - kernel: the kernel's file.
    ///   - initramfs: the initial file system's file; nil: none.
    ///   - commandLine: without a final NUL.
    public init(kernel: SharedDescriptor, initramfs: SharedDescriptor?, commandLine: [UInt8]) {
        self.kernel = kernel
        self.initramfs = initramfs
        self.commandLine = commandLine
    }

    /// Loads the initramfs as high as possible, since the kernel unpacks from the bottom of memory upwards.
    ///
    /// - Parameters:
    ///   - low: the first byte that it may take.
    ///   - high: the end of what it may take.
    /// - Returns: where it is, and its size in bytes; nil where there is none.
    func loadInitramfs(
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

    /// Copies a part of a file into memory; `name` is for the error.
    func read(
        _ file: SharedDescriptor, _ name: String, _ offset: UInt64, _ count: UInt64, to address: UInt64,
        _ memory: GuestMemory
    ) throws {
        if count == 0 { return }
        let done: Void? = try memory.withBytes(at: address, count: Int(count)) { bytes in
            guard try readAll(into: bytes, from: file.raw, at: Int64(offset), name) == bytes.count else {
                throw MachineError("\(name): truncated while it was read")
            }
        }
        if done == nil { throw MachineError("\(name): \(count) bytes at \(hexadecimal(address)) are outside memory") }
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

/// A number as `0x…`.
func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
