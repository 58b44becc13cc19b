import NIOCore
import NIOHTTP1
import Sandbox
import Telemetry

/// Asks pods' servers for their metrics.
enum MetricsClient {
    /// Bytes of an answer; more is refused.
    private static let longestAnswer = 16 << 20

    /// The metrics that the server at a Unix socket answers.
    ///
    /// - Parameter limit: for all of it.
    static func metrics(at path: String, _ format: MetricFormat, within limit: TimeAmount) async throws -> String {
        let request = HTTPRequest(
            server: .unix(path), method: .GET, path: "/metrics", headers: ["Accept": format.contentType],
            longestAnswer: longestAnswer)
        let answer = try await request.answer(within: limit)
        guard answer.status == .ok else {
            throw SandboxError.failed("the pod's server answered \(answer.status.code)")
        }
        return answer.body
    }
}
