import AgentAPI
import AgentContract

extension SandboxPlan.Container {
    /// What the agent is to mount before the container is made, but for shares.
    var storages: [AgentStorage] {
        volumes.map { volume in
            .with {
                $0.driver = StorageDriver.block.rawValue
                $0.source = volume.disk.id
                $0.mountPoint = volume.mountPoint
                $0.readonly = volume.disk.readOnly
                $0.fstype = volume.type
                $0.options = volume.options
            }
        }
            + podVolumes.map { volume in
                .with {
                    $0.driver = StorageDriver.volume.rawValue
                    $0.source = volume.name
                    $0.path = volume.part
                    $0.mountPoint = volume.mountPoint
                }
            }
    }
}

extension AgentStorage {
    init(_ share: ShareStorage) {
        self.init()
        driver = StorageDriver.share.rawValue
        source = share.name
        mountPoint = share.mountPoint
        path = share.path
        readonly = share.isReadOnly
        options = share.otherPaths
    }
}

extension AgentSocket {
    init(_ socket: SandboxPlan.ForwardedSocket, target: UInt32) {
        self.init()
        self.target = target
        mountPoint = socket.mountPoint
        (mode, uid, gid) = (socket.mode, socket.uid, socket.gid)
    }
}
