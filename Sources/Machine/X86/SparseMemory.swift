import Glibc
import Virtio

/// Where Linux touches a few KiB of 2 MiB at its start. There memory comes in small pages, where its file has huge ones.
extension GuestMemory {
    private static let hugePage: UInt64 = 2 << 20
    /// A section of Linux's memory map (SPARSEMEM, arch/x86/include/asm/sparsemem.h).
    private static let section: UInt64 = 128 << 20

    /// Says so to the host's kernel, which need not follow.
    ///
    /// - Parameter kernelEnd: the end of the kernel's last segment.
    func keepSparsePartsSmall(kernelEnd: UInt64) {
        let ranges: [Range<UInt64>] = [
            // Memory that can be reclaimed has blocks of its own: from 4 MiB on. What cannot is before and behind it.
            Self.hugePage..<8 << 20,
            // Which blocks of the first section are in use: one page at its end.
            Self.section - Self.hugePage..<Self.section,
            // The end of the kernel: its early page tables.
            kernelEnd / Self.hugePage * Self.hugePage..<(kernelEnd / Self.hugePage + 1) * Self.hugePage,
        ]
        for range in ranges {
            _ = withBytes(at: range.lowerBound, count: range.count) {
                madvise($0.baseAddress, $0.count, MADV_NOHUGEPAGE)
            }
        }
    }
}
