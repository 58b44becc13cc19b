import FoundationEssentials

/// What iperf3's client says with `--json`, as much of it as counts here.
struct IperfReport: Decodable {
    struct Sum: Decodable {
        var bytes: Double
        var seconds: Double
    }

    private struct End: Decodable {
        var sent: Sum?
        var received: Sum?
        enum CodingKeys: String, CodingKey {
            case sent = "sum_sent"
            case received = "sum_received"
        }
    }

    private struct Document: Decodable {
        var error: String?
        var end: End?
    }

    /// As the sender saw it.
    var sent: Sum
    /// As the receiver saw it.
    var received: Sum

    init(_ text: String) throws {
        guard let document = try? JSONDecoder().decode(Document.self, from: Data(text.utf8)) else {
            throw BenchError("iperf3 said: \(text.suffix(500))")
        }
        if let error = document.error { throw BenchError("iperf3: \(error)") }
        guard let sent = document.end?.sent, let received = document.end?.received else {
            throw BenchError("iperf3 gave no sums")
        }
        self.sent = sent
        self.received = received
    }

    /// Bits that arrived, for each second that one of the two ends counted.
    func rate(by clock: KeyPath<IperfReport, Sum>) throws -> Double {
        let seconds = self[keyPath: clock].seconds
        guard seconds > 0, received.bytes > 0 else { throw BenchError("iperf3 moved nothing") }
        return received.bytes * 8 / seconds
    }
}
