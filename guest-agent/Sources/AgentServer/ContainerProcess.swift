import CLinux
import ContainerInit
import GuestSystem
import LinuxSystem

/// A process that the host asked for: a container's first one or a further one.
final class ContainerProcess: Sendable {
    let process: GuestProcess
    let streams: ProcessStreams
    private let channel: InitChannel

    /// The stage has set everything up and waits for its word.
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
        try during("release the stage") { try channel.send(.go) }
        let answer = try during("wait for the stage") { try channel.receive() }
        // The channel closes with the execution.
        guard let answer else { return }
        if case .failed(let kind, let message) = answer.message { throw AgentFailure(kind, message) }
        throw AgentFailure(.internal, "the stage answered out of turn")
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
