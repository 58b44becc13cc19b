import GuestSystem

/// A list of processors or memory nodes as the kernel writes it: `0-3,7` (cpuset(7), List format).
public struct CPUList: Sendable, Equatable {
    /// Ascending.
    public let numbers: [Int]

    /// The kernel's own limit on x86-64 (CONFIG_NR_CPUS).
    static let limit = 8192

    /// nil when it is not such a list.
    public init?(_ text: some StringProtocol) {
        var found: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: true) {
            let ends = part.trimming().split(separator: "-", omittingEmptySubsequences: false)
            guard (1...2).contains(ends.count), let first = Int(ends[0]), let last = Int(ends[ends.count - 1]),
                first >= 0, first <= last, last < Self.limit
            else { return nil }
            found.formUnion(first...last)
        }
        numbers = found.sorted()
    }
}

extension StringProtocol {
    /// Without white space at both ends.
    fileprivate func trimming() -> SubSequence {
        let head = drop(while: \.isWhitespace)
        return head[..<(head.lastIndex { !$0.isWhitespace }.map { head.index(after: $0) } ?? head.startIndex)]
    }
}
