import AgentAPI
import FoundationEssentials

/// A volume's entries as requests of the agent's, each of which fits a message.
struct VolumeRequests {
    /// How much of files a request carries; ttrpc's messages have 4 MiB.
    static let limit = 1 << 20

    private let name: String
    private(set) var requests: [AgentWriteVolumeRequest] = []
    private var room = 0

    /// - Parameter name: the volume's.
    init(_ name: String) { self.name = name }

    /// - Parameter prefix: a directory of the volume that the entries are in; empty: itself.
    mutating func add(_ entries: [VolumeEntry], in prefix: String = "") {
        for entry in entries {
            var offset = 0
            repeat {
                if room < entry.path.utf8.count + 128 { start() }
                let end = min(entry.data.count, offset + room)
                append(entry, in: prefix, offset..<end)
                offset = end
            } while offset < entry.data.count
        }
    }

    /// The last one: publishes a directory and the links beside it.
    mutating func publish(_ directory: String, _ links: [VolumeEntry]) {
        start()
        for link in links { append(link, in: "", 0..<link.data.count) }
        requests[requests.count - 1].publish = directory
    }

    private mutating func start() {
        requests.append(.with { $0.name = name })
        room = Self.limit
    }

    private mutating func append(_ entry: VolumeEntry, in prefix: String, _ range: Range<Int>) {
        requests[requests.count - 1].entries.append(
            .with {
                $0.path = [prefix, entry.path].filter { !$0.isEmpty }.joined(separator: "/")
                ($0.mode, $0.uid, $0.gid) = (entry.mode, entry.uid, entry.gid)
                $0.data = Data(entry.data[range])
                $0.offset = UInt64(range.lowerBound)
            })
        room -= entry.path.utf8.count + 128 + range.count
    }
}
