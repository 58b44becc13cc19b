import Glibc
import LinuxSystem

/// A guest kernel as its headers describe it: which parts of the file go where in guest memory, and the entry point.
///
/// The headers are checked against the file's size. The loader must check that the segments fit into the guest's memory.
/// Sources: ELF-64 object file format; Documentation/arch/x86/boot.rst.
public struct KernelImage: Sendable, Equatable {
    public enum Format: Sendable, Equatable {
        /// An uncompressed x86-64 ELF kernel.
        case vmlinux
        /// A compressed kernel in the boot protocol's format.
        case bzImage
    }

    /// A part of the file and its guest-physical address. All numbers are bytes.
    public struct Segment: Sendable, Equatable {
        public var fileOffset: UInt64
        public var fileCount: UInt64
        public var address: UInt64
        /// At least `fileCount`. The rest is filled with zeroes.
        public var memoryCount: UInt64
    }

    public var format: Format
    /// In the file's order; at least one.
    public var segments: [Segment]
    /// Guest-physical address of the entry in 64-bit mode.
    public var entry: UInt64
    /// A bzImage's setup header, from offset 0x1f1 of the file on; empty for a vmlinux.
    public var setupHeader: [UInt8] = []
    /// The initramfs must end at or below this address.
    public var initramfsLimit: UInt64 = 1 << 32

    /// Reads the headers of an open file.
    ///
    /// - Parameter name: the file's name in errors.
    /// - Throws: `KernelImageError` when it is not a kernel that can be loaded.
    public init(file: Int32, name: String) throws(KernelImageError) {
        var facts = stat()
        guard fstat(file, &facts) == 0 else { throw KernelImageError(name, "\(SystemError.last("fstat"))") }
        guard facts.st_mode & S_IFMT == S_IFREG else { throw KernelImageError(name, "not a regular file") }
        let reader = ImageReader(file: file, name: name, size: UInt64(clamping: facts.st_size))
        let head = try reader.bytes(at: 0, atMost: 4096)
        if head.starts(with: [0x7f, 0x45, 0x4c, 0x46]) {
            self = try reader.elf(head)
        } else if head.u32(0x202) == 0x5372_6448 {  // "HdrS"
            self = try reader.bzImage(head)
        } else {
            throw KernelImageError(name, "neither an ELF vmlinux nor a bzImage")
        }
    }

    init(format: Format, segments: [Segment], entry: UInt64) {
        self.format = format
        self.segments = segments
        self.entry = entry
    }
}

/// Why a file is not a kernel that can be loaded.
public struct KernelImageError: Error, Sendable, Equatable, CustomStringConvertible {
    public var description: String
    init(_ name: String, _ reason: String) { description = "guest kernel \(name): \(reason)" }
}
