import CLinux
import ContainerInit
import GuestSystem
import LinuxSystem

/// A process that the host requested: a container's first one or a further one.
final class ContainerProcess: Sendable {
    let process: GuestProcess
    let streams: ProcessStreams
    private let channel: InitChannel

    /// - Parameters:
    ///   - process: a container init that has set everything up and waits to execute.
    ///   - channel: the agent's end of its channel.
    init(_ process: GuestProcess, _ streams: ProcessStreams, _ channel: InitChannel) {
        self.process = process
        self.streams = streams
        self.channel = channel
        Task {
            _ = await process.ended.value()
            streams.end()
            await streams.drained()
        }
    }

    var pid: UInt32 { UInt32(clamping: process.pid) }

    var hasEnded: Bool { process.ended.current != nil }

    /// Executes its program; blocks until that has happened or failed.
    func execute() throws(AgentFailure) {
        try during("release the container init") { try channel.send(.go) }
        let answer = try during("wait for the container init") { try channel.receive() }
        // The channel closes with the execution.
        guard let answer else { return }
        if case .failed(let kind, let message) = answer.message { throw AgentFailure(kind, message) }
        throw AgentFailure(.internal, "the container init sent a message out of turn")
    }

    /// Has an init that executes no program do its work; blocks until that is done or has failed.
    func work() throws(AgentFailure) {
        try during("release the container init") { try channel.send(.go) }
        switch try during("wait for the container init", { try channel.receive() })?.message {
        case .done: return
        case .failed(let kind, let message): throw AgentFailure(kind, message)
        case .ready, .entered, .go:
            throw AgentFailure(.internal, "the container init sent a message out of turn")
        case nil:
            let end = process.ended.wait(timeout: .seconds(1)).map { "\($0.status)" } ?? "still running"
            throw AgentFailure(.internal, "the process that did it was ended with its container, or for memory: \(end)")
        }
    }

    /// Suspends until it has ended. Its output may still be on its way: each stream ends by itself.
    func wait() async -> GuestProcess.End { await process.ended.value() }

    func signal(_ number: Int32) throws(AgentFailure) {
        if martlet_pidfd_send_signal(process.descriptor.raw, number) == 0 { return }
        let error = SystemError.last("send signal \(number)")
        if error.errno == .noSuchProcess { throw AgentFailure(.notFound, "the process has ended") }
        throw AgentFailure(error)
    }
}
