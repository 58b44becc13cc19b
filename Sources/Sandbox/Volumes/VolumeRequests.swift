import AgentAPI
import FoundationEssentials

/// Splits a volume's entries into requests to the agent that fit into a message.
struct VolumeRequests {
    /// The limit for the files in a request, bytes. A ttrpc message has at most 4 MiB.
    static let limit = 1 << 20

    private let name: String
    private(set) var requests: [AgentWriteVolumeRequest] = []
    private var room = 0

    /// - Parameter name: the volume's name.
    init(_ name: String) { self.name = name }

    /// Adds entries.
    ///
    /// - Parameter prefix: the directory of the volume that contains the entries; empty: the volume's own.
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

    /// Adds the last request, which publishes a directory and the links beside it.
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
