import Glibc
import LinuxSystem

/// A guest's memory, written to a file.
extension VM {
    private static let pageSize = 4096

    /// Writes the pages that are not zero, each at its place in the memory's file.
    ///
    /// - Parameters:
    ///   - file: an empty file of the memory's size. Nobody writes to the memory meanwhile.
    ///   - hotplugged: guest-physical addresses of what is plugged of `MemoryMap.hotplug`; the rest is not looked at.
    func writeMemory(to file: Int32, hotplugged: [Range<UInt64>]) throws {
        let plugged = hotplugged.compactMap { map.hotplugBank(at: $0) }
        for bank in map.ranges + plugged {
            let bytes = memory.withBytes(at: bank.address, count: Int(bank.count)) { UnsafeRawBufferPointer($0) }
            guard let bytes else { throw MachineError("memory at \(bank.address) is not mapped") }
            try eachUsedPart(of: bank) { part in
                let start = Int(part.lowerBound) - Int(bank.offset)
                let pages = UnsafeRawBufferPointer(rebasing: bytes[start..<start + part.count])
                try Self.writePages(pages, to: file, at: part.lowerBound)
            }
        }
        try check("fdatasync", "memory", fdatasync(file))
    }

    /// Calls `body` with what of a bank may have other pages than zeros, as positions in the memory's file.
    private func eachUsedPart(of bank: MemoryMap.Bank, _ body: (Range<Int64>) throws -> Void) throws {
        let all = Int64(bank.offset)..<Int64(bank.offset + bank.count)
        // What the guest has written of private memory is not in the file. To read a hole of shared memory would fill it.
        if isPrivate { try body(all) } else { try eachExtent(of: memoryFile.raw, in: all, "guest memory", body) }
    }

    /// Writes those of some pages that are not zero.
    private static func writePages(_ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int64) throws {
        var start = 0
        while start < bytes.count {
            var end = start
            while end < bytes.count, !isZero(bytes, at: end) { end += pageSize }
            if end > start {
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                try writeAll(part, to: file, at: offset + Int64(start), "memory")
            }
            start = end + pageSize
        }
    }

    private static func isZero(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        guard let page = bytes.baseAddress.map({ $0 + offset }) else { return true }
        // The first word tells of most pages; then each word is the same as the one before.
        return page.load(as: UInt64.self) == 0 && memcmp(page, page + 8, pageSize - 8) == 0
    }
}
