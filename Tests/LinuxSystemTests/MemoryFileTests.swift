import CLinux
import Glibc
import LinuxSystem
import Testing

@Suite struct MemoryFileTests {
    @Test func theSizeStays() throws {
        let file = try OwnedDescriptor.memory("test", size: 10000)
        var facts = stat()
        try check("fstat", "test", fstat(file.raw, &facts))
        #expect(facts.st_size == 10000)
        for size in [0, 9999, 10001] {
            #expect(ftruncate(file.raw, size) == -1 && errno == EPERM)
        }
        #expect(pwrite(file.raw, [1], 1, 10000) == -1 && errno == EPERM)
        #expect(pwrite(file.raw, [1], 1, 9999) == 1)
        #expect(throws: SystemError.self) { try file.seal(F_SEAL_WRITE) }
    }

    @Test func anEmptyOneGrowsUntilItIsSealed() throws {
        let file = try OwnedDescriptor.memory("test", size: 0)
        #expect(pwrite(file.raw, [1, 2], 2, 0) == 2)
        try file.seal(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
        #expect(pwrite(file.raw, [3], 1, 0) == -1 && errno == EPERM)
    }
}
