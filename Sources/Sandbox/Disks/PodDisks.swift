import Hypervisor
import LinuxSystem
import Logging
import Synchronization

/// The disks of a pod's machine, each plugged while a container uses it. Containers that name the same files in the same way share one.
final class PodDisks: Sendable {
    /// The containers that use a disk, by its id.
    private let users = Mutex<[String: Set<String>]>([:])
    private let changes = OneAtATime()
    private let machine: any VirtualMachine
    private let agent: GuestAgent
    private let logger: Logger

    /// - Parameter restored: what the machine has gone on from, with its disks; nil: it has none yet.
    init(_ machine: any VirtualMachine, _ agent: GuestAgent, restored: RestoredPod?, logger: Logger) {
        self.machine = machine
        self.agent = agent
        self.logger = logger
        users.withLock { users in
            for member in restored?.members ?? [] {
                for disk in member.plan.disks { users[disk.id, default: []].insert(member.plan.id) }
            }
        }
    }

    /// Plugs the disks of a container that the machine does not have yet. Those that were plugged before a failure stay until `remove`.
    ///
    /// - Throws: `HypervisorError` where something else uses a disk's files, or the machine has no slot left.
    func add(_ disks: [Disk], container: String) async throws {
        if disks.isEmpty { return }
        try await changes.run { [self] in
            for disk in disks {
                if users.withLock({ $0[disk.id] }) == nil {
                    try await onThread("add disk") { [machine] in try machine.addDisk(disk) }
                }
                users.withLock { _ = $0[disk.id, default: []].insert(container) }
            }
        }
        logger.phase("disks plugged")
    }

    /// Takes away what only this container used. A disk that the guest does not let go of stays, with its slot.
    ///
    /// - Returns: whether the container used any.
    func remove(_ container: String) async -> Bool {
        if users.withLock({ users in !users.values.contains { $0.contains(container) } }) { return false }
        try? await changes.run { [self] in
            let idle = users.withLock { users in
                for id in users.keys { users[id]?.remove(container) }
                return users.filter(\.value.isEmpty).map(\.key)
            }
            for id in idle {
                do {
                    try await agent.releaseDisk(id)
                    try await onThread("remove disk") { [machine] in try machine.removeDisk(id: id) }
                    users.withLock { $0[id] = nil }
                } catch {
                    let level: Logger.Level = isConnectionLoss(error) ? .debug : .warning
                    logger.log(level: level, "disk \(id) stays in the machine: \(error)")
                }
            }
        }
        return true
    }
}
