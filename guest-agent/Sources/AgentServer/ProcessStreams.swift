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
    private let numbers: AgentStreams
    private let hasTerminal: Bool
    /// A fault: nothing is relayed.
    private let stalled: Bool
    private let ends: Mutex<Ends>
    private let stopInput: SharedDescriptor
    private let processEnded: SharedDescriptor
    private let outputs: [Promise<Void>]

    /// Makes the pipes. With a terminal there are none: its master comes from the container init.
    init(
        _ numbers: AgentStreams, terminal: Bool, table: StreamTable, stalled: Bool = false
    ) throws(SystemError) {
        self.table = table
        self.stalled = stalled
        self.numbers = numbers
        hasTerminal = terminal
        stopInput = try SharedDescriptor.event()
        processEnded = try SharedDescriptor.event()
        var ends = Ends()
        let null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
        ends.child = [null, null, null]
        if !terminal {
            if numbers.stdin != 0 { (ends.child[0], ends.stdin) = try SharedDescriptor.pipe() }
            if numbers.stdout != 0 { (ends.stdout, ends.child[1]) = try SharedDescriptor.pipe() }
            if numbers.stderr != 0 { (ends.stderr, ends.child[2]) = try SharedDescriptor.pipe() }
        }
        let count = terminal ? (numbers.stdout == 0 ? 0 : 1) : [ends.stdout, ends.stderr].compactMap { $0 }.count
        var outputs: [Promise<Void>] = []
        for _ in 0..<count { outputs.append(try Promise<Void>()) }
        self.outputs = outputs
        self.ends = Mutex(ends)
    }

    /// The descriptors 0, 1 and 2 of the process.
    var childDescriptors: [SharedDescriptor] { ends.withLock { $0.child } }

    /// Closes the agent's copies of the process's ends once the process has its own, so that the agent sees them close.
    func closeChildEnds() { ends.withLock { $0.child = [] } }

    /// Starts to relay; `terminal` is the master of the process's terminal.
    func start(terminal: SharedDescriptor?) throws(SystemError) {
        if stalled { return ends.withLock { $0.terminal = terminal } }
        let (stdin, stdout, stderr) = ends.withLock { ends in
            ends.terminal = terminal
            defer { (ends.stdin, ends.stdout, ends.stderr) = (nil, nil, nil) }
            return (ends.stdin, ends.stdout, ends.stderr)
        }
        if let terminal {
            // Input first: nothing that is typed ahead may be lost to a program that is fast to end.
            try startInput(terminal)
            if numbers.stdout != 0, let done = outputs.first { try startOutput(terminal, numbers.stdout, done) }
            return
        }
        if let stdin { try startInput(stdin) }
        if let stdout, let done = outputs.first { try startOutput(stdout, numbers.stdout, done) }
        if let stderr, let done = outputs.last { try startOutput(stderr, numbers.stderr, done) }
    }

    private func startInput(_ sink: SharedDescriptor) throws(SystemError) {
        let (table, number) = (table, numbers.stdin)
        if number == 0 { return }
        let relay = InputRelay(stream: try table.slot(number), sink: sink, stop: stopInput) { table.release(number) }
        try relay.start("stdin \(number)")
    }

    private func startOutput(_ source: SharedDescriptor, _ number: UInt64, _ done: Promise<Void>) throws(SystemError) {
        let relay = OutputRelay(
            source: source, stream: try table.slot(number), processEnded: processEnded, done: done
        ) { [weak self, table] hostIsGone in
            table.release(number)
            if hostIsGone { self?.hangUp() }
        }
        try relay.start("output \(number)")
    }

    /// Ends the input; what the host has sent already is still passed on.
    func closeInput() { stopInput.signal() }

    /// The process has ended: its streams end with it.
    func end() {
        closeInput()
        // A relay may still wait for a connection that is not needed any more.
        table.abandon(numbers.stdin)
        processEnded.signal()
    }

    /// The process is being removed: nothing waits any longer for connections that were never made.
    func abandon() {
        hangUp()
        for number in [numbers.stdin, numbers.stdout, numbers.stderr] { table.abandon(number) }
    }

    /// Suspends until all output is with the host. A stream that the host never connected is given up after a while.
    func drained() async {
        let missing = Task { [table, numbers] in
            try await Task.sleep(for: .seconds(10))
            for number in [numbers.stdin, numbers.stdout, numbers.stderr] { table.abandon(number) }
        }
        for output in outputs { await output.value() }
        missing.cancel()
    }

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
