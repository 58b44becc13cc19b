import Glibc
import LinuxSystem
import Synchronization
import Testing

/// A server's program, which a test may kill and start again.
final class Daemon: Sendable {
    private let words: [String]
    private let environment: [String]
    private let running = Mutex<Command?>(nil)

    /// - Parameters:
    ///   - words: the program and its arguments.
    ///   - network: the network namespace that it runs in; nil: the tests' own.
    init(_ words: [String], network: String?, environment: [String]) {
        self.words = (network.map { ["nsenter", "--net=\(Net.path($0))"] } ?? []) + words
        self.environment = environment
    }

    /// The process id since the last start.
    var pid: Int32? { running.withLock { $0?.child.pid } }
    /// What it has written to its standard error since the last start.
    var log: String { running.withLock { $0?.errors?.text } ?? "" }

    /// Starts it; does not wait until it answers.
    func start() throws {
        let command = try Command(words[0], Array(words.dropFirst()), output: .null, environment: environment)
        running.withLock { $0 = command }
    }

    /// Asks it to end and waits for that; kills it past `limit`.
    func stop(within limit: Duration = .seconds(30)) throws {
        let command = try #require(running.withLock { $0 })
        command.child.signal(SIGTERM)
        if command.child.waitForEnd(timeout: limit * Lab.patience) == nil { try kill() }
    }

    /// Kills it and waits for that.
    func kill() throws {
        let command = try #require(running.withLock { $0 })
        command.child.signal(SIGKILL)
        _ = command.child.waitForEnd()
    }
}
