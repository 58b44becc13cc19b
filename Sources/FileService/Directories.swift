import CLinux
import Glibc

/// Entries read from the host ahead of the guest's asking.
final class DirectoryEntries {
    static let capacity = 8 << 10
    let bytes: UnsafeMutableRawBufferPointer
    private let memory: MemoryBudget
    var length = 0
    var cursor = 0
    /// The host's position of the entry at `cursor`; at first unknown, so that the first use seeks.
    var position = UInt64.max

    /// - Throws: ENOMEM.
    init(_ memory: MemoryBudget) throws(FileError) {
        try memory.take(Self.capacity)
        self.memory = memory
        bytes = .allocate(byteCount: Self.capacity, alignment: 8)
    }

    deinit {
        bytes.deallocate()
        memory.give(Self.capacity)
    }
}

/// DT_* of readdir(3).
enum DirentType {
    static let characterDevice: UInt32 = 2
    static let directory: UInt32 = 4
    static let regular: UInt32 = 8
}

/// READDIR and READDIRPLUS.
extension FileServer {
    private struct Entry {
        var inode: UInt64
        var next: UInt64
        var type: UInt32
        var name: UnsafePointer<CChar>
        var length: Int

        var isDot: Bool { !isEntryName(name) }
    }

    func readDirectory(_ request: FuseRequest, plus: Bool) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_read_in.self)
        let room = min(Int(input.size), request.room)
        if nodes.slots[slot].isSynthetic {
            return try readSynthetic(slot, from: input.offset, room: room, plus: plus)
        }
        guard let file = handles.find(input.fh, node: request.header.nodeid, directory: true) else { throw .badHandle }
        let entries = try entries(of: file)
        if entries.position != input.offset {
            guard let offset = Int(exactly: input.offset), Glibc.lseek(file.descriptor, offset, SEEK_SET) >= 0 else {
                throw .invalid
            }
            entries.length = 0
            entries.cursor = 0
            entries.position = input.offset
        }
        var written = 0
        while true {
            guard var entry = try next(entries, file.descriptor, hasMore: written > 0) else {
                // The end, or an error that the next request gets.
                if written == 0 { file.entries = nil }
                return written
            }
            if file.hasWhiteouts, entry.type == DirentType.regular, isMarked(file.descriptor, entry.name) {
                entry.type = DirentType.characterDevice
            }
            guard let size = emit(entry, at: written, room: room, plus: plus, directory: file.descriptor, parent: slot)
            else {
                if written == 0 { throw .invalid }
                return written
            }
            written += size
            entries.cursor += entryLength(entries)
            entries.position = entry.next
        }
    }

    /// What a directory has been read ahead; where there is no memory for it, others start anew.
    private func entries(of file: OpenFile) throws(FileError) -> DirectoryEntries {
        if let entries = file.entries { return entries }
        let entries: DirectoryEntries
        do throws(FileError) { entries = try DirectoryEntries(memory) } catch {
            for other in handles.all { other.entries = nil }
            entries = try DirectoryEntries(memory)
        }
        file.entries = entries
        return entries
    }

    private func entryLength(_ entries: DirectoryEntries) -> Int {
        Int(entries.bytes.loadUnaligned(fromByteOffset: entries.cursor + 16, as: UInt16.self))
    }

    /// The entry at the cursor, read from the host if need be; nil at the end.
    private func next(_ entries: DirectoryEntries, _ directory: Int32, hasMore: Bool) throws(FileError) -> Entry? {
        if entries.cursor >= entries.length {
            let count = martlet_getdents(directory, entries.bytes.baseAddress, entries.bytes.count)
            if count < 0, !hasMore { throw .last }
            entries.cursor = 0
            entries.length = max(0, count)
            if count <= 0 { return nil }
        }
        guard let base = entries.bytes.baseAddress else { return nil }
        let raw = base + entries.cursor
        let name = UnsafePointer((raw + 19).assumingMemoryBound(to: CChar.self))
        return Entry(
            inode: raw.loadUnaligned(as: UInt64.self), next: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            type: UInt32(raw.loadUnaligned(fromByteOffset: 18, as: UInt8.self)), name: name, length: strlen(name))
    }

    /// Puts an entry into the answer; its length there, nil if it does not fit.
    private func emit(
        _ entry: Entry, at start: Int, room: Int, plus: Bool, directory: Int32, parent: Int
    ) -> Int? {
        let head = plus ? MemoryLayout<fuse_entry_out>.size : 0
        let nameStart = start + head + 24
        let end = (nameStart + entry.length + 7) & ~7
        guard end <= room, end <= answer.count, let base = answer.baseAddress else { return nil }
        var inode = entry.inode
        if plus {
            // Without a number the guest takes it as a plain entry: `.` and `..`, or one that is just gone.
            var out = fuse_entry_out()
            if !entry.isDot, let status = try? FileStatus(directory, entry.name),
                let slot = try? node(status, parent: parent, name: entry.name)
            {
                out = self.entry(slot, status)
                inode = out.attr.ino
            }
            _ = put(out, at: start)
        }
        // struct fuse_dirent
        _ = put(inode, at: start + head)
        _ = put(entry.next, at: start + head + 8)
        _ = put(UInt32(entry.length), at: start + head + 16)
        _ = put(entry.type, at: start + head + 20)
        memset(base + nameStart, 0, end - nameStart)
        memcpy(base + nameStart, entry.name, entry.length)
        return end - start
    }

    /// The root or the directory of a file system. Positions are the numbers of shares or file systems, so that one that
    /// comes or goes in between moves no other.
    private func readSynthetic(_ slot: Int, from position: UInt64, room: Int, plus: Bool) throws(FileError) -> Int {
        var written = 0
        typealias Child = (id: Int32, name: String, slot: Int)
        func add(_ name: String, _ inode: UInt64, _ next: UInt64, _ type: UInt32, _ child: Child?) -> Bool {
            if next <= position { return true }
            return name.withCString { text in
                let entry = Entry(inode: inode, next: next, type: type, name: text, length: strlen(text))
                guard let size = emitSynthetic(entry, at: written, room: room, plus: plus, child) else { return false }
                written += size
                return true
            }
        }
        let own = syntheticAttributes(slot).ino
        var fits =
            add(".", own, 1, DirentType.directory, nil) && add("..", Self.rootInode, 2, DirentType.directory, nil)
        for child in syntheticEntries(slot) where fits {
            let node = nodes.slots[child.slot]
            let inode = node.isSynthetic ? syntheticAttributes(child.slot).ino : shownInode(child.slot)
            fits = add(child.name, inode, UInt64(child.id) + 2, node.identity.type >> 12, child)
        }
        if !fits, written == 0 { throw .invalid }
        return written
    }

    private func emitSynthetic(
        _ entry: Entry, at start: Int, room: Int, plus: Bool, _ child: (id: Int32, name: String, slot: Int)?
    ) -> Int? {
        let head = plus ? MemoryLayout<fuse_entry_out>.size : 0
        guard let size = emit(entry, at: start + head, room: room, plus: false, directory: -1, parent: NodeTable.root)
        else { return nil }
        if plus { _ = put(child.flatMap { try? syntheticEntry($0) } ?? fuse_entry_out(), at: start) }
        // With its head of a multiple of 8 bytes the record stays aligned.
        return head + size
    }
}
