import Glibc
import GuestKernel
import Hypervisor
import Testing

@Suite struct KernelImageTests {
    private func write(_ bytes: [UInt8]) throws -> String {
        var template = Array("/tmp/martlet-kernel.XXXXXX".utf8CString)
        let file = mkstemp(&template)
        try #require(file >= 0)
        defer { close(file) }
        #expect(Glibc.write(file, bytes, bytes.count) == bytes.count)
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func refusal(_ bytes: [UInt8]) throws -> String {
        let path = try write(bytes)
        defer { unlink(path) }
        do {
            let image = try KernelImage.inspect(path)
            Issue.record("taken as \(image)")
            return ""
        } catch {
            #expect(error.description.contains(path))
            return error.description
        }
    }

    /// An ELF file with one loadable segment of `length` bytes at offset 120 of a file of `size` bytes.
    private func elf(length: UInt64, size: Int, headers: UInt16 = 1, headerOffset: UInt64 = 64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            for (index, byte) in withUnsafeBytes(of: value.littleEndian, Array.init).enumerated()
            where offset + index < size {
                bytes[offset + index] = byte
            }
        }
        for (index, byte) in [0x7f, 0x45, 0x4c, 0x46, 2, 1].enumerated() where index < size {
            bytes[index] = UInt8(byte)
        }
        put(UInt16(62), 18)
        put(headerOffset, 32)
        put(UInt16(56), 54)
        put(headers, 56)
        put(UInt32(1), 64)
        put(UInt64(120), 72)
        put(length, 96)
        put(length, 104)
        return bytes
    }

    @Test func takesWhatIsWhole() throws {
        let path = try write(elf(length: 80, size: 200))
        defer { unlink(path) }
        #expect(try KernelImage.inspect(path).format == .vmlinux)
    }

    @Test func refusesTruncatedSegments() throws {
        #expect(try refusal(elf(length: 81, size: 200)).contains("truncated: segment 0"))
        #expect(try refusal(elf(length: .max, size: 200)).contains("truncated"))
    }

    @Test func refusesHostileHeaders() throws {
        #expect(try refusal(elf(length: 0, size: 200, headers: 0)).contains("program headers"))
        #expect(try refusal(elf(length: 0, size: 200, headers: .max)).contains("program headers"))
        #expect(try refusal(elf(length: 0, size: 200, headerOffset: .max)).contains("truncated"))
        #expect(try refusal(elf(length: 0, size: 40)).contains("ELF"))
    }

    @Test func refusesWhatIsNoKernel() throws {
        #expect(try refusal([]).contains("neither"))
        #expect(try refusal(Array("#!/bin/sh\n".utf8)).contains("neither"))
    }

    @Test func refusesTruncatedBzImage() throws {
        var bytes = [UInt8](repeating: 0, count: 4096)
        bytes.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        bytes[0x206] = 0x0f
        bytes[0x207] = 0x02
        bytes[0x1f1] = 4
        bytes[0x1f5] = 0x10  // 0x1000 paragraphs: 64 KiB
        #expect(try refusal(bytes).contains("truncated: 4096 bytes of 68096"))
        bytes[0x207] = 0x01
        #expect(try refusal(bytes).contains("older than 2.12"))
    }

    @Test func everyCutOfAGoodHeaderIsRefusedOrWhole() throws {
        let whole = elf(length: 80, size: 200)
        for size in 0..<200 { #expect(!(try refusal(Array(whole.prefix(size)))).isEmpty) }
    }
}
