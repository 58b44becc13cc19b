import FoundationEssentials

/// The parts of the report of iperf3's client (`--json`) that are used.
struct IperfReport: Decodable {
    struct Transfer: Decodable {
        var bytes: Double
        var seconds: Double
    }

    private struct End: Decodable {
        var sent: Transfer?
        var received: Transfer?
        enum CodingKeys: String, CodingKey {
            case sent = "sum_sent"
            case received = "sum_received"
        }
    }

    private struct Document: Decodable {
        var error: String?
        var end: End?
    }

    /// The transfer as the sender measured it.
    var sent: Transfer
    /// The transfer as the receiver measured it.
    var received: Transfer

    init(_ text: String) throws {
        guard let document = try? JSONDecoder().decode(Document.self, from: Data(text.utf8)) else {
            throw BenchError("iperf3 printed: \(text.suffix(500))")
        }
        if let error = document.error { throw BenchError("iperf3: \(error)") }
        guard let sent = document.end?.sent, let received = document.end?.received else {
            throw BenchError("the report of iperf3 has no totals")
        }
        self.sent = sent
        self.received = received
    }

    /// Bits received per second, by the clock of one of the two ends.
    func rate(by clock: KeyPath<IperfReport, Transfer>) throws -> Double {
        let seconds = self[keyPath: clock].seconds
        guard seconds > 0, received.bytes > 0 else { throw BenchError("iperf3 transferred nothing") }
        return received.bytes * 8 / seconds
    }
}
