import Hypervisor
import LinuxSystem
import TTRPC
import VMMControl

/// Why a request failed: a machine that ends takes its connections first, and its processes' ends are known a moment later.
extension VirtualMachine {
    /// The error to report for a failed request: the machine's end, if that is what made it fail.
    func cause(ofFailedRequest error: any Error) async -> any Error {
        guard isConnectionLoss(error) else { return error }
        let end = await end(
            within: MachineLoss.delay, otherwise: "a connection to the machine was lost: \(error)")
        return SandboxError.machineEnded(reason: end.description, console: consoleTail)
    }

    /// The error to report for a failed launch: the machine's end, if that is what made it fail. The machine is gone
    /// afterwards.
    func cause(ofFailedLaunch error: any Error) async -> any Error {
        let isOfMachine = error is TTRPCError || error is SandboxError || error is DeviceError
        let delay: Duration = isConnectionLoss(error) ? MachineLoss.delay : .milliseconds(isOfMachine ? 200 : 0)
        let end = await end(within: delay, otherwise: "start failed: \(error)")
        if case .ended = end { return error }
        return SandboxError.machineEnded(reason: end.description, console: consoleTail)
    }

    /// The machine's end; when it does not come by itself within `delay`, the machine is killed for `reason`.
    func end(within delay: Duration, otherwise reason: String) async -> VMEnd {
        let kill = Task {
            try await Task.sleep(for: delay)
            self.kill(.ended(reason))
        }
        defer { kill.cancel() }
        return await end()
    }
}

private enum MachineLoss {
    /// From the loss of a connection until the machine's end must be known.
    static let delay = Duration.seconds(2)
}

/// Whether the other end of a connection into the machine, or to one of its processes, has gone.
func isConnectionLoss(_ error: any Error) -> Bool {
    switch error {
    case let error as TTRPCError: error.code == .unavailable || error.code == .cancelled
    case let error as DeviceError: error == .closed
    default: false
    }
}
