import Glibc
import LinuxSystem

/// A guest kernel as its headers describe it: what of the file goes where in the guest's memory, and where to start.
///
/// The headers are checked against the file's size, so that what is promised is there; whether it fits the guest's memory
/// is for whoever loads it. Sources: ELF-64 object file format; Documentation/arch/x86/boot.rst.
public struct KernelImage: Sendable, Equatable {
    public enum Format: Sendable, Equatable {
        /// An uncompressed x86-64 ELF kernel.
        case vmlinux
        /// A compressed kernel in the boot protocol's format.
        case bzImage
    }

    /// A part of the file and its place in guest-physical memory; all numbers are bytes.
    public struct Segment: Sendable, Equatable {
        public var fileOffset: UInt64
        public var fileCount: UInt64
        public var address: UInt64
        /// At least `fileCount`; the rest is zero.
        public var memoryCount: UInt64
    }

    public var format: Format
    /// In the file's order; at least one.
    public var segments: [Segment]
    /// Guest-physical address of the entry in 64-bit mode.
    public var entry: UInt64
    /// A bzImage's setup header, from offset 0x1f1 of the file on; empty for a vmlinux.
    public var setupHeader: [UInt8] = []
    /// The highest address that the initial file system may end at, exclusive.
    public var initramfsLimit: UInt64 = 1 << 32

    /// Reads the headers of an open file.
    ///
    /// - Parameter name: what errors call the file.
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

/// Why a file is no kernel that can be loaded.
public struct KernelImageError: Error, Sendable, Equatable, CustomStringConvertible {
    public var description: String
    init(_ name: String, _ why: String) { description = "guest kernel \(name): \(why)" }
}
