import Archive
import FuzzSupport
import Glibc
import LinuxSystem

/// Archives that a guest has made, unpacked as the host does it, beside a file that is none of their business.
final class ArchiveTarget: FuzzTarget {
    private let directory: ShareDirectory

    init() throws { directory = try ShareDirectory() }

    func run(_ input: inout Input) throws {
        try directory.restore()
        defer { directory.requireUntouched() }
        let share = directory.path + "/share"
        let rule: CopyDestination.Rule = input.pick([.directory(isMade: false), .directory(isMade: true), .place])
        let path = input.pick([share, share + "/", share + "/new", share + "/file", share + "/directory/."])
        let keepsOwners = input.byte() & 1 != 0
        let archive = try archive(&input)
        let reader = TarReader(archive)
        let first = try reader.next()
        if let first { try requireSame(first) }
        let destination = try CopyDestination(root: RootDirectory("/"), path: path, rule, first: first)
        var unpacker = Unpacker(into: destination, .host(keepsOwners: keepsOwners))
        try unpacker.unpack(reader, first: first)
    }

    /// What was read is read again as the same after it was written.
    private func requireSame(_ entry: TarEntry) throws {
        guard entry.size == 0, !entry.name.isEmpty, abs(entry.modified.seconds / 2) < 1 << 60 else { return }
        let file = SharedDescriptor(try OwnedDescriptor.memory("entry", size: 0))
        let writer = TarWriter(file)
        try writer.add(entry)
        try writer.finish()
        lseek(file.raw, 0, SEEK_SET)
        let again = try TarReader(file).next()
        require(again == entry, "\(entry) became \(String(describing: again))")
    }

    // MARK: Archives

    private func archive(_ input: inout Input) throws -> SharedDescriptor {
        let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
        var bytes: [UInt8]
        if input.byte() & 7 == 0 {
            bytes = input.rest()
        } else {
            try write(&input, to: file)
            bytes = [UInt8](repeating: 0, count: Int(try file.information().st_size))
            _ = try bytes.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, "archive") }
            for _ in 0..<input.below(6) {
                let (offset, value) = (Int(input.word()) % bytes.count, input.byte())
                bytes[offset] = value
            }
        }
        reseal(&bytes)
        try writeAll(bytes, to: file.raw, "archive")
        lseek(file.raw, 0, SEEK_SET)
        return file
    }

    private func write(_ input: inout Input, to file: SharedDescriptor) throws {
        let writer = TarWriter(file)
        let kinds: [TarEntry.Kind] = [
            .file, .directory, .symbolicLink, .hardLink, .symbolicLink, .fifo, .characterDevice, .directory,
        ]
        for _ in 0..<1 + input.below(12) {
            var entry = TarEntry(input.pick(kinds), name(&input), mode: UInt32(input.word()) & 0o7777)
            entry.linkTarget = name(&input)
            (entry.uid, entry.gid) = (input.pick([0, 1, 65_534, 3_000_000_000]), 0)
            entry.modified = (Int64(bitPattern: input.number64()), Int32(input.word()))
            let content = entry.kind == .file ? input.take(input.below(40)) : []
            entry.size = Int64(content.count)
            try writer.add(entry)
            if content.isEmpty { continue }
            _ = try writer.fill { space in
                content.withUnsafeBytes { space.copyMemory(from: $0) }
                return content.count
            }
        }
        try writer.finish()
    }

    private func name(_ input: inout Input) -> [UInt8] {
        let parts = ["a", "b", "out", "up", "..", ".", "directory", "file", "", "secret", "tmp", "new"]
        var name: [UInt8] = []
        for index in 0..<1 + input.below(4) {
            if index > 0 { name.append(UInt8(ascii: "/")) }
            name += input.byte() == 255 ? [UInt8](repeating: 120, count: 120) : Array(input.pick(parts).utf8)
        }
        return name
    }

    /// Makes the checksums right again: else hardly any change would be looked at.
    private func reseal(_ bytes: inout [UInt8]) {
        for start in stride(from: 0, to: bytes.count - 511, by: 512)
        where bytes[start + 257..<start + 262].elementsEqual("ustar".utf8) {
            for index in start + 148..<start + 156 { bytes[index] = UInt8(ascii: " ") }
            let sum = String(bytes[start..<start + 512].reduce(0) { $0 + Int($1) }, radix: 8)
            let digits = String(repeating: "0", count: 6 - sum.utf8.count) + sum + "\0"
            for (index, byte) in digits.utf8.enumerated() { bytes[start + 148 + index] = byte }
        }
    }
}
