import AgentAPI
import CAgent
import CLinux
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// The stdin, stdout and stderr of one process, from the descriptors it starts with to the relays that serve them.
final class ProcessStreams: Sendable {
    /// The agent's ends.
    private struct Ends {
        var stdin: SharedDescriptor?
        var stdout: SharedDescriptor?
        var stderr: SharedDescriptor?
        var terminal: SharedDescriptor?
        /// The process's ends; the agent's copies are closed when it has started.
        var child: [SharedDescriptor] = []
    }

    private let table: StreamTable
    private let hasTerminal: Bool
    /// A fault: nothing is relayed.
    private let stalled: Bool
    private let ends: Mutex<Ends>
    private let stopInput: SharedDescriptor
    private let processEnded: SharedDescriptor
    /// nil: the process has no such stream. What a terminal shows is stdout.
    private let stdin: RelayedStream?
    private let stdout: RelayedStream?
    private let stderr: RelayedStream?

    /// Makes the pipes. With a terminal there are none: its master comes from the container init.
    init(
        _ numbers: AgentStreams, terminal: Bool, table: StreamTable, stalled: Bool = false
    ) throws(SystemError) {
        self.table = table
        self.stalled = stalled
        hasTerminal = terminal
        stopInput = try SharedDescriptor.event()
        processEnded = try SharedDescriptor.event()
        stdin = try RelayedStream("stdin", .toProcess, numbers.stdin, table: table, processEnded: stopInput)
        stdout = try RelayedStream("stdout", .fromProcess, numbers.stdout, table: table, processEnded: processEnded)
        let errors = terminal ? 0 : numbers.stderr
        stderr = try RelayedStream("stderr", .fromProcess, errors, table: table, processEnded: processEnded)
        var ends = Ends()
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
        ends.child = [null, null, null]
        if !terminal {
            if stdin != nil { (ends.child[0], ends.stdin) = try SharedDescriptor.pipe() }
            if stdout != nil { (ends.stdout, ends.child[1]) = try SharedDescriptor.pipe() }
            if stderr != nil { (ends.stderr, ends.child[2]) = try SharedDescriptor.pipe() }
        }
        self.ends = Mutex(ends)
    }

    /// The descriptors 0, 1 and 2 of the process.
    var childDescriptors: [SharedDescriptor] { ends.withLock { $0.child } }

    /// Closes the agent's copies of the process's ends once the process has its own, so that the agent sees them close.
    func closeChildEnds() { ends.withLock { $0.child = [] } }

    /// Starts to relay; `terminal` is the master of the process's terminal.
    func start(terminal: SharedDescriptor?) throws(SystemError) {
        if stalled { return ends.withLock { $0.terminal = terminal } }
        let (input, output, errors) = ends.withLock { ends in
            ends.terminal = terminal
            defer { (ends.stdin, ends.stdout, ends.stderr) = (nil, nil, nil) }
            return (terminal ?? ends.stdin, terminal ?? ends.stdout, ends.stderr)
        }
        let hangUp: @Sendable () -> Void = { [weak self] in self?.hangUp() }
        // Input first: nothing that is typed ahead may be lost to a program that is fast to end.
        if let input { try stdin?.start(input) {} }
        if let output { try stdout?.start(output, onHostGone: hangUp) }
        if let errors { try stderr?.start(errors, onHostGone: hangUp) }
    }

    /// Ends the input; what the host has sent already is still passed on.
    func closeInput() { stopInput.signal() }

    /// The process has ended: its streams end with it. Outputs that are detached keep what it has written.
    func end() {
        closeInput()
        // A relay may still wait for a connection that is not needed any more.
        stdin?.abandon()
        processEnded.signal()
    }

    /// The process is being removed: nothing waits any longer for connections that were never made, or will be.
    func abandon() {
        hangUp()
        for stream in all { stream.abandon() }
    }

    /// Another process has its name: nobody attaches these streams any more.
    func abandonDetached() { for stream in all where !stream.isAttached { stream.abandon() } }

    /// Suspends until all output of a process that has ended is with the host. A stream that the host does not connect is given up
    /// after a while, but one that is detached is not.
    func drained() async {
        let missing = Task { [outputs] in
            var waiting = outputs.map(\.number)
            while true {
                try await Task.sleep(for: StreamTable.longestWait)
                for (stream, number) in zip(outputs, waiting) where number == stream.number { stream.giveUpMissing() }
                waiting = outputs.map(\.number)
            }
        }
        // A fault's relays do not even start.
        for output in outputs { await output.ended?.value() }
        missing.cancel()
    }

    private var outputs: [RelayedStream] { [stdout, stderr].compactMap { $0 } }

    private var all: [RelayedStream] { [stdin, stdout, stderr].compactMap { $0 } }

    // MARK: Detaching

    /// A stream that is being detached.
    struct Detaching: Sendable {
        let stream: RelayedStream
        /// Settled when it is.
        let done: Promise<Void>
    }

    /// Has every stream let go of its connection.
    func detach() throws(SystemError) -> [Detaching] {
        if stalled { return [] }
        var detaching: [Detaching] = []
        for stream in all { if let done = try stream.detach() { detaching.append(.init(stream: stream, done: done)) } }
        return detaching
    }

    /// Whether all output of a process that has ended is with the host.
    var isDrained: Bool { outputs.allSatisfy { $0.ended?.current != nil } }

    /// Throws where a stream is attached.
    func checkDetached() throws(AgentFailure) {
        guard !stalled, let stream = all.first(where: \.isAttached) else { return }
        throw AgentFailure(.failedPrecondition, "its \(stream.name) is attached")
    }

    /// Goes on with other connections.
    func attach(_ numbers: AgentStreams) {
        for (stream, number) in [(stdin, numbers.stdin), (stdout, numbers.stdout), (stderr, numbers.stderr)] {
            if let stream, !stalled { stream.attach(number) } else { table.refuse(number) }
        }
    }

    // MARK: The terminal

    /// Changes the terminal's size; throws when there is no terminal.
    func resize(rows: UInt16, columns: UInt16) throws(AgentFailure) {
        guard let terminal = ends.withLock({ $0.terminal }) else {
            throw AgentFailure(.failedPrecondition, hasTerminal ? "its terminal is closed" : "it has no terminal")
        }
        try during("set its terminal's size") {
            try check("TIOCSWINSZ", "", martlet_agent_set_window(terminal.raw, rows, columns))
        }
    }

    /// Closes the terminal, so that its processes get a hang-up.
    func hangUp() {
        guard hasTerminal else { return }
        ends.withLock { $0.terminal = nil }
        closeInput()
    }
}
