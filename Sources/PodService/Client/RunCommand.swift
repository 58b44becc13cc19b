import Glibc
import LinuxSystem
import Logging
import Sandbox
import Synchronization
import TTRPC
import TaskAPI
import Tracing

/// `martlet run`: a container from its creation to its end. Only a client of the pod's server.
public struct RunCommand: Sendable {
    public var options: CreateOptions
    /// Whether the container is left as it is when its process has ended.
    public var keepsContainer: Bool
    /// A file that gets the trace of the run; nil: there is none.
    public var traceFile: String?
    public var runtime: Runtime

    public init(
        _ options: CreateOptions, keepsContainer: Bool = false, traceFile: String? = nil, _ runtime: Runtime
    ) {
        self.options = options
        self.keepsContainer = keepsContainer
        self.traceFile = traceFile
        self.runtime = runtime
    }

    /// Exit code when the VM, the server or Martlet itself failed while a container ran.
    static let failure: Int32 = 255

    /// Runs the container.
    ///
    /// - Returns: its exit code; 128 + n when signal n ended it, 255 when its VM ended under it. 0 at once for one that is detached.
    /// - Throws: what was wrong with the request; nothing is left then.
    public func run(logger: Logger) async throws -> Int32 {
        try runtime.requireRoot(for: "run")
        guard let traceFile else { return try await perform(logger) }
        let trace = try CommandTrace(file: traceFile, runtime.configuration, logger)
        return try await trace.record("run \(options.id)") { try await perform(logger) }
    }

    private func perform(_ logger: Logger) async throws -> Int32 {
        let signals = try options.isDetached ? nil : SignalQueue(ForwardedSignals.all)
        let container = try await withSpan("prepare") { _ in try await NewContainer(options, runtime) }
        do {
            let status = try await asking { try await follow(container, signals) }
            await CommandTrace.collect(from: container.task.client)
            if !options.isDetached { await finish(container) }
            return status
        } catch {
            await CommandTrace.collect(from: container.task.client)
            let isLost = if case .connectionLost? = error as? CommandError { true } else { false }
            let end = container.server?.waitForEnd(timeout: .milliseconds(isLost ? 1000 : 0))
            await container.abandon()
            if let end {
                logger.error("container \(container.id): the pod's server \(end)")
                return RunCommand.failure
            }
            if case .aborted(let message)? = error as? CommandError {
                logger.error("container \(container.id): \(message)")
                return RunCommand.failure
            }
            throw error
        }
    }

    /// Takes the container away that has ended, and the pod unless others are in it.
    private func finish(_ container: NewContainer) async {
        if keepsContainer { return await keep(container) }
        _ = try? await container.task.delete(.with { $0.id = container.id }, timeout: Runtime.requestTimeout)
        runtime.records.remove(container.id)
        if let server = container.server { await server.finish() }
    }

    /// Leaves the record of a container that has stopped, until it is deleted. A pod of its own ends with this command all the same.
    private func keep(_ container: NewContainer) async {
        guard let server = container.server, var record = runtime.records.read(container.id) else { return }
        await server.finish()
        record.isKept = true
        do {
            try runtime.records.claim(container.id)
            try runtime.records.write(record)
        } catch {
            // Somebody has deleted it, and made another one.
        }
    }

    private func follow(_ container: NewContainer, _ signals: SignalQueue?) async throws -> Int32 {
        let progress = Progress()
        let forwarding = signals.map { signals in
            Task { await forward(signals, to: container, progress) }
        }
        defer { forwarding?.cancel() }
        do {
            try await ProgressLine.show("starting the machine of \(container.id)") { try await container.create() }
        } catch {
            // Ended by the person who started it, as any process would be.
            if let signal = progress.signal { return 128 + signal }
            throw error
        }
        progress.state.withLock { $0.isCreated = true }
        if options.isDetached {
            try await container.start()
            return 0
        }
        await container.terminal.resize(container.task, container: container.id)
        container.terminal.begin()
        defer { container.terminal.end() }
        do {
            // One that came too late to end the creation ends the container.
            if progress.signal == nil { try await container.start() } else { await send(SIGKILL, to: container, true) }
        } catch  where progress.signal != nil {}
        progress.state.withLock { $0.isStarted = true }
        let end = await withSpan("container") { _ in await container.process.end() }
        if let signal = progress.signal { return 128 + signal }
        if let server = container.server, end == .exited(RunCommand.failure) {
            // It ends in that way too when the server is gone.
            if let end = server.waitForEnd(timeout: .milliseconds(100)), !end.isClean {
                throw TTRPCError(.unavailable, "the pod's server \(end)")
            }
        }
        return end.status
    }

    /// How far the container has come, and the signal that came before its program was executed, which ends it.
    private final class Progress: Sendable {
        struct State {
            var isCreated = false
            var isStarted = false
            var signal: Int32?
        }
        let state = Mutex(State())
        var signal: Int32? { state.withLock { $0.signal } }
    }

    private func forward(_ signals: SignalQueue, to container: NewContainer, _ progress: Progress) async {
        for await signal in signals.stream {
            if signal == SIGWINCH {
                await container.terminal.resize(container.task, container: container.id)
                continue
            }
            let state = progress.state.withLock { state in
                if !state.isStarted { state.signal = signal }
                return state
            }
            // What waits for the start takes no other signal.
            await send(state.isCreated && !state.isStarted ? SIGKILL : signal, to: container, state.isCreated)
        }
    }

    private func send(_ signal: Int32, to container: NewContainer, _ isCreated: Bool) async {
        while true {
            do throws(TTRPCError) {
                _ = try await container.task.kill(
                    .with {
                        $0.id = container.id
                        $0.signal = UInt32(signal)
                    }, timeout: .seconds(10))
                return
            } catch {
                // A process that has just ended takes no signal; that is no failure. One whose creation the server has not
                // begun yet is asked again.
                guard !isCreated, error.code == .notFound, !Task.isCancelled else { return }
                try? await Task.sleep(for: .milliseconds(10))
            }
        }
    }
}

/// What a command in the foreground passes on to its process.
enum ForwardedSignals {
    static let all = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH]
}
