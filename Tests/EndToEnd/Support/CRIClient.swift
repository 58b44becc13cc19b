import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Synchronization

/// What the runtime answered to a call that failed: `NOT_FOUND: …`.
struct CRIError: Error, CustomStringConvertible {
    var description: String
}

/// Asks a container runtime by CRI, as a kubelet does. Many calls may be under way at once.
final class CRIClient: Sendable {
    private struct Request: Encodable {
        var number: Int
        var version: String
        var method: String
        var timeout: Int
        var message: JSONValue
    }

    private struct Reply: Decodable {
        var number: Int
        var answer: JSONValue?
        var error: String?
    }

    private struct Calls {
        var last = 0
        var waiting: [Int: Promise<Result<JSONValue, CRIError>>] = [:]
    }

    static let program = "\(Lab.repository)/Tests/EndToEnd/Programs/cri.py"

    private let command: Command
    private let calls = Mutex(Calls())

    /// What the client knows of CRI's messages: made once, kept in the cache.
    static func descriptors() throws -> String {
        try Command.run("\(Lab.repository)/scripts/cri-descriptors.sh", []).trimmed
    }

    init(socket: String) throws {
        let pipe = try SharedDescriptor.pipe()
        command = try Command(
            Self.program, ["call", socket, Self.descriptors()], input: .pipe, output: .descriptor(pipe.write))
        let answers = pipe.read
        try startThread("cri") { [self] in
            var rest: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 64 << 10)
            while case let count = read(answers.raw, &chunk, chunk.count), count > 0 {
                rest += chunk[..<count]
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    settle(Array(rest[..<end]))
                    rest.removeFirst(end + 1)
                }
            }
        }
    }

    private func settle(_ line: [UInt8]) {
        guard let reply = try? JSONDecoder().decode(Reply.self, from: Data(line)) else { return }
        let promise = calls.withLock { $0.waiting.removeValue(forKey: reply.number) }
        promise?.settle(reply.error.map { .failure(CRIError(description: $0)) } ?? .success(reply.answer ?? .null))
    }

    /// One call; its answer.
    ///
    /// - Parameter limit: what the call may take; multiplied by the tests' patience.
    /// - Throws: `CRIError`: the runtime's own word.
    @discardableResult
    func call(
        _ method: String, _ message: JSONValue = [:], version: String = "v1", within limit: Int = 60
    ) throws -> JSONValue {
        let promise = try Promise<Result<JSONValue, CRIError>>()
        let number = calls.withLock { calls in
            calls.last += 1
            calls.waiting[calls.last] = promise
            return calls.last
        }
        let seconds = limit * Lab.patience
        let request = Request(number: number, version: version, method: method, timeout: seconds, message: message)
        let line = String(decoding: try JSONEncoder().encode(request), as: UTF8.self) + "\n"
        guard calls.withLock({ _ in command.input?.write(line) }) == true,
            let result = promise.wait(timeout: .seconds(seconds + 10))
        else { throw LabError("cri.py does not answer \(method): \(command.errors?.text ?? "")") }
        return try result.get()
    }

    /// Lets the program end.
    func close() { command.input?.close() }
}

extension String {
    /// Without spaces and line ends at both ends.
    var trimmed: String {
        let inside = drop(while: \.isWhitespace)
        return String(inside.reversed().drop(while: \.isWhitespace).reversed())
    }
}
