import Synchronization

/// How much memory a guest may make the file server use: for the files that it knows, for what it has open, and for directories that
/// it reads. The kernel's part of open files is counted too.
final class MemoryBudget: Sendable {
    /// Bytes of a node beside its name: with its place in the index, and room that tables keep free to grow.
    static let node = 400
    /// Bytes of an open file or directory, the kernel's included.
    static let handle = 1024
    /// Nodes leave so much of it to what is open: a quarter.
    private static let nodeShare = (part: 3, of: 4)

    let limit: Int
    private let used = Atomic(0)

    init(_ limit: Int) { self.limit = limit }

    /// Bytes that are taken.
    var taken: Int { used.load(ordering: .relaxed) }

    /// Takes memory for nodes.
    ///
    /// - Throws: ENFILE where there is no more of it.
    func takeForNodes(_ bytes: Int) throws(FileError) {
        if !take(bytes, below: limit / Self.nodeShare.of * Self.nodeShare.part) { throw .full }
    }

    /// Takes memory for something that is open.
    ///
    /// - Throws: ENOMEM where there is no more of it.
    func take(_ bytes: Int) throws(FileError) {
        if !take(bytes, below: limit) { throw .noMemory }
    }

    private func take(_ bytes: Int, below limit: Int) -> Bool {
        if used.add(bytes, ordering: .relaxed).newValue <= limit { return true }
        give(bytes)
        return false
    }

    func give(_ bytes: Int) { used.subtract(bytes, ordering: .relaxed) }
}
