import AgentAPI
import GuestSystem
import LinuxSystem
import Synchronization

/// The volumes of the sandbox that are in the guest's memory, by their names. They last as long as the guest.
final class Volumes: Sendable {
    private let directory: String
    private let volumes = Mutex<[String: Volume]>([:])

    init(directory: String) { self.directory = directory }

    /// Makes one, unless there is one of that name.
    func make(_ request: AgentMakeVolumeRequest) throws(AgentFailure) {
        guard VolumePath(request.name)?.directory.isEmpty == true else {
            throw AgentFailure(.invalidArgument, "not the name of a volume")
        }
        try volumes.withLock { volumes throws(AgentFailure) in
            if volumes[request.name] != nil { return }
            do throws(SystemError) {
                volumes[request.name] = try Volume(request, at: "\(directory)/\(request.name)")
            } catch {
                throw AgentFailure(error)
            }
        }
    }

    func find(_ name: String) throws(AgentFailure) -> Volume {
        guard let volume = volumes.withLock({ $0[name] }) else {
            throw AgentFailure(.notFound, "there is no such volume")
        }
        return volume
    }
}
