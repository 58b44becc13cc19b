import AgentAPI
import AgentContract

extension SandboxPlan.Container {
    /// What the agent is to mount before the container is made.
    var storages: [AgentStorage] {
        shares.map { share in
            .with {
                $0.driver = StorageDriver.share.rawValue
                $0.source = share.name
                $0.mountPoint = share.mountPoint
                $0.readonly = share.readOnly
            }
        }
            + volumes.map { volume in
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
