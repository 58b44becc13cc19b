import LinuxSystem
import Synchronization

/// The guest's connections of a process's streams; nil: none.
struct StreamConnections: Sendable {
    var stdin: SharedDescriptor?
    var stdout: SharedDescriptor?
    var stderr: SharedDescriptor?
}

/// The relays of a process's streams; each has a vsock connection of its own, and all have or none has.
final class ProcessStreams: Sendable {
    private let input: StreamRelay?
    private let output: StreamRelay?
    private let errors: StreamRelay?
    /// Whether output is waited for without a limit.
    private let waitsForReader: Bool
    /// The write end of the fifo that input is read from: keeps the input from ending before the engine asks for that.
    private let writeEnd: Mutex<SharedDescriptor?>
    /// Settled when the streams are attached again or cancelled; nil: they are not detached.
    private let detachment: Mutex<Promise<Void>?>

    private var outputs: [StreamRelay] { [output, errors].compactMap { $0 } }
    private var relays: [StreamRelay] { [input, output, errors].compactMap { $0 } }

    /// Makes the relays, detached.
    init(_ engine: EngineStreams) throws {
        func relay(
            _ name: String, _ end: EngineStreams.End?, _ direction: StreamRelay.Direction
        ) throws -> StreamRelay? {
            try end.map { try StreamRelay(name: name, engine: $0.descriptor, guest: nil, direction: direction) }
        }
        var made: [StreamRelay] = []
        do {
            detachment = Mutex(try Promise())
            input = try relay("stdin", engine.stdin, .toGuest)
            made += [input].compactMap { $0 }
            output = try relay("stdout", engine.stdout, .fromGuest)
            made += [output].compactMap { $0 }
            errors = try relay("stderr", engine.stderr, .fromGuest)
        } catch {
            for relay in made { relay.cancel() }
            throw error
        }
        writeEnd = Mutex(engine.stdin?.writeEnd)
        waitsForReader = engine.waitsForReader
    }

    /// How long the report of an exit waits for output that nobody reads, unless the reader is waited for without a limit.
    static let exitTimeout = Duration.milliseconds(500)
    /// How long a removal does.
    static let removalTimeout = Duration.seconds(3)

    /// Suspends until the engine has all output of a process that has ended, or `limit` has passed. The limit begins when the streams are
    /// attached.
    func finish(within limit: Duration) async {
        input?.cancel()
        for output in outputs { output.endOfProcess() }
        while let detachment = detachment.withLock({ $0 }) { await detachment.value() }
        let outputs = outputs
        await waiting(atMost: waitsForReader ? .seconds(Int32.max) : limit) {
            for output in outputs { await output.finish() }
        }
    }

    /// Stops everything; output not taken yet is dropped.
    func cancel() {
        for relay in relays { relay.cancel() }
        endDetachment()
    }

    /// Ends the process's input: what the engine has written into a fifo is still passed on.
    func closeInput() {
        let closed = writeEnd.withLock { writeEnd in
            defer { writeEnd = nil }
            return writeEnd
        }
        if closed == nil { input?.cancel() }
    }

    // MARK: Detaching

    var isDetached: Bool { detachment.withLock { $0 != nil } }

    /// Whether input goes on with another connection.
    var isInputOpen: Bool { input?.isAttachable == true }

    /// Whether any stream goes on with another connection.
    var isAttachable: Bool { relays.contains { $0.isAttachable } }

    /// Begins to let go of the connections. The agent does the same when it is asked to, which comes after this.
    func detach() throws {
        let promise = try Promise<Void>()
        detachment.withLock { if $0 == nil { $0 = promise } }
        for relay in relays { try relay.detach() }
    }

    /// Suspends until all connections have been let go of and all that came with them is with the engine or in the guest.
    ///
    /// - Throws: `SandboxError.failed` with the names of the streams that are not, after `limit`.
    func detached(within limit: Duration) async throws {
        let relays = relays
        await waiting(atMost: limit) { for relay in relays { await relay.detached() } }
        let late = relays.filter { !$0.hasLetGo }.map { $0.name }
        if late.isEmpty { return }
        throw SandboxError.failed(
            "\(late.joined(separator: ", ")): not detached within \(limit): nobody reads what the process has written")
    }

    /// Connects each stream that goes on.
    ///
    /// - Parameter connect: opens a connection with a new number.
    /// - Returns: the numbers, for the agent, and the connections, for `attach`.
    func connect(
        isolation: isolated (any Actor)? = #isolation, _ connect: () async throws -> (UInt64, SharedDescriptor)
    ) async throws -> (StreamNumbers, StreamConnections) {
        var (numbers, connections) = (StreamNumbers(), StreamConnections())
        if let input, input.isAttachable { (numbers.stdin, connections.stdin) = try await connect() }
        if let output, output.isAttachable { (numbers.stdout, connections.stdout) = try await connect() }
        if let errors, errors.isAttachable { (numbers.stderr, connections.stderr) = try await connect() }
        return (numbers, connections)
    }

    /// Goes on with these connections, each when the last one of its stream is done with.
    func attach(_ connections: StreamConnections) {
        if let guest = connections.stdin { input?.attach(guest) }
        if let guest = connections.stdout { output?.attach(guest) }
        if let guest = connections.stderr { errors?.attach(guest) }
        endDetachment()
    }

    private func endDetachment() {
        detachment.withLock { detachment in
            detachment?.settle(())
            detachment = nil
        }
    }
}
