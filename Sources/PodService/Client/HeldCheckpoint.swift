import CLinux
import Glibc
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

/// A checkpoint that another pod starts from, written by the server of the pod that is copied. The server has the pod's containers
/// paused until `release`, and removes the checkpoint at `end`, both also when this process dies.
struct HeldCheckpoint: Sendable {
    /// Its directory, absolute.
    let path: String
    private let holder: SharedDescriptor

    /// - Parameters:
    ///   - container: one that is alone in its pod; empty: all containers of the pod.
    ///   - socket: of the pod's server.
    ///   - path: of a directory that is not there, absolute.
    /// - Throws: what the pod's server refused or could not do; the containers go on then, and nothing is left.
    init(container: String, socket: String, path: String) async throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let handed = try HandedProcesses.hand(stream: theirs, to: socket)
        defer { withExtendedLifetime(handed) {} }
        let inspection = InspectionServiceClient(try await TTRPCClient(unixPath: socket))
        let request = PodCheckpointRequest.with {
            $0.path = path
            $0.containerID = container
            $0.leaveRunning = true
            $0.holder = HandedProcesses.streamName(handed.number)
        }
        _ = try await inspection.checkpoint(request, timeout: Runtime.requestTimeout)
        (self.path, holder) = (path, ours)
    }

    /// Has the containers go on.
    func release() {
        var byte: UInt8 = 1
        _ = send(holder.raw, &byte, 1, Int32(MSG_NOSIGNAL))
    }

    /// Has the containers go on, and the checkpoint removed.
    func end() { shutdown(holder.raw, Int32(SHUT_RDWR)) }
}
