/// The ids of users that exist in this process's user namespace (user_namespaces(7)).
public struct IDMap: Sendable, Equatable {
    /// Ids inside, one range after the other.
    public let ranges: [Range<UInt64>]

    /// - Parameter text: of /proc/PID/uid_map or gid_map.
    public init(_ text: String) {
        ranges = text.split(separator: "\n").compactMap { line in
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            return numbers.count == 3 ? numbers[0]..<numbers[0] + numbers[2] : nil
        }
    }

    /// Of the users of this process's namespace; in the host's all ids exist.
    public static func ofUsers() -> IDMap {
        IDMap((try? readText("/proc/self/uid_map")) ?? "0 0 4294967295")
    }

    /// As many of some ids as exist: all of them, or the last ones of the largest range, but root.
    ///
    /// - Returns: the range's only id, where it has no more.
    public func choose(_ wanted: Range<UInt64>) -> Range<UInt64> {
        if ranges.contains(where: { $0.lowerBound <= wanted.lowerBound && wanted.upperBound <= $0.upperBound }) {
            return wanted
        }
        guard let range = ranges.max(by: { $0.count < $1.count }), let first = range.first else { return wanted }
        let others = (first == 0 ? range.dropFirst() : range).suffix(wanted.count)
        return others.isEmpty ? first..<first + 1 : others
    }
}
