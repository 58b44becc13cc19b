import Glibc

/// A file or directory that the guest has open. Its descriptor closes when the last user of the object is done,
/// so a transfer in progress outlives a RELEASE.
final class OpenFile: @unchecked Sendable {
    let descriptor: Int32
    /// The node's slot and number.
    let slot: Int
    let node: UInt64
    /// The nearest and the outermost share that led to the file when it was opened.
    let shares: (nearest: Int32, outermost: Int32)
    let isDirectory: Bool
    /// How it was opened: access mode, O_SYNC and O_DSYNC.
    let flags: Int32
    /// Only read-only shares led to it.
    let isReadOnly: Bool
    /// A directory in which files may stand for whiteouts.
    var hasWhiteouts = false
    /// Entries that the host gave and the guest did not get yet (`getdents64`); used under the server's lock.
    var entries: DirectoryEntries?
    private let memory: MemoryBudget

    /// Takes the descriptor over.
    ///
    /// - Throws: ENOMEM; the descriptor is closed then.
    init(
        descriptor: Int32, slot: Int, node: UInt64, shares: (nearest: Int32, outermost: Int32), isDirectory: Bool,
        flags: Int32, isReadOnly: Bool, memory: MemoryBudget
    ) throws(FileError) {
        do throws(FileError) { try memory.take(MemoryBudget.handle) } catch {
            close(descriptor)
            throw error
        }
        self.memory = memory
        self.descriptor = descriptor
        self.slot = slot
        self.node = node
        self.shares = shares
        self.isDirectory = isDirectory
        self.flags = flags & ~O_TRUNC
        self.isReadOnly = isReadOnly
    }

    var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }

    deinit {
        close(descriptor)
        memory.give(MemoryBudget.handle)
    }
}

/// The open files by the numbers that the guest has for them: `generation << 32 | slot`. Not thread-safe.
struct HandleTable {
    private var files: ContiguousArray<OpenFile?> = []
    private var generations: ContiguousArray<UInt32> = []
    private var free: [Int] = []
    let capacity: Int

    init(capacity: Int) { self.capacity = capacity }

    /// The table that a saved one was, with what is open in each slot.
    init(capacity: Int, slots: [(generation: UInt32, file: OpenFile?)]) {
        self.capacity = capacity
        files = ContiguousArray(slots.map(\.file))
        generations = ContiguousArray(slots.map(\.generation))
        free = slots.indices.reversed().filter { slots[$0].file == nil }
    }

    /// The generation of each slot, and what is open there.
    var slots: [(generation: UInt32, file: OpenFile?)] { zip(generations, files).map { ($0, $1) } }

    var count: Int { files.count - free.count }
    var isFull: Bool { count >= capacity }

    mutating func add(_ file: OpenFile) -> UInt64 {
        let slot: Int
        if let reused = free.popLast() {
            slot = reused
            files[slot] = file
        } else {
            files.append(file)
            generations.append(1)
            slot = files.count - 1
        }
        return UInt64(generations[slot]) << 32 | UInt64(slot)
    }

    private func slot(_ number: UInt64) -> Int? {
        let slot = Int(number & 0xffff_ffff)
        guard slot < files.count, generations[slot] == UInt32(truncatingIfNeeded: number >> 32) else { return nil }
        return slot
    }

    /// The open file of a number, of the right kind and of this node; nil otherwise.
    func find(_ number: UInt64, node: UInt64, directory: Bool) -> OpenFile? {
        guard let slot = slot(number), let file = files[slot], file.node == node, file.isDirectory == directory
        else { return nil }
        return file
    }

    mutating func remove(_ number: UInt64) {
        guard let slot = slot(number), files[slot] != nil else { return }
        files[slot] = nil
        let next = generations[slot] &+ 1
        generations[slot] = next == 0 ? 1 : next
        free.append(slot)
    }

    /// Any open file of a node; walks the table, for rare cases.
    func any(of node: UInt64) -> OpenFile? {
        for case let file? in files where file.node == node { return file }
        return nil
    }

    /// The open files.
    var all: some Sequence<OpenFile> { files.lazy.compactMap { $0 } }

    /// Removes those that `isGone` says; returns the slots of their nodes.
    mutating func removeAll(where isGone: (OpenFile) -> Bool) -> [Int] {
        var nodes: [Int] = []
        for slot in files.indices {
            guard let file = files[slot], isGone(file) else { continue }
            nodes.append(file.slot)
            remove(UInt64(generations[slot]) << 32 | UInt64(slot))
        }
        return nodes
    }
}
