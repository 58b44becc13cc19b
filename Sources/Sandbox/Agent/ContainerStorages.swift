import AgentAPI
import AgentContract

extension SandboxPlan.Container {
    /// What the agent is to mount before the container is made, but for shares.
    var storages: [AgentStorage] {
        var storages = root?.mounts.map { AgentStorage($0) } ?? []
        for volume in volumes {
            storages.append(
                .with {
                    $0.driver = StorageDriver.block.rawValue
                    $0.source = volume.disk.id
                    $0.mountPoint = volume.mountPoint
                    $0.readonly = volume.disk.readOnly
                    $0.fstype = volume.type
                    $0.options = volume.options
                })
        }
        for volume in podVolumes {
            storages.append(
                .with {
                    $0.driver = StorageDriver.volume.rawValue
                    $0.source = volume.name
                    $0.path = volume.part
                    $0.mountPoint = volume.mountPoint
                })
        }
        return storages + blockDevices.map { AgentStorage($0) }
    }
}

extension AgentStorage {
    init(_ mount: SandboxPlan.GuestMount) {
        self.init()
        mountPoint = mount.mountPoint
        readonly = mount.readOnly
        options = mount.options
        directories = mount.directories.map { directory in
            .with {
                ($0.path, $0.mode, $0.uid, $0.gid) = (directory.path, directory.mode, directory.uid, directory.gid)
            }
        }
        switch mount.kind {
        case .disk(let id, let type, let parts):
            (driver, source, fstype) = (StorageDriver.block.rawValue, id, type)
            self.parts = parts.map { part in
                .with { ($0.offset, $0.length) = (part.offset, part.length) }
            }
        case .overlay(let lower, let upper, let work):
            driver = StorageDriver.overlay.rawValue
            (self.lower, self.upper, self.work) = (lower, upper, work)
        case .memory: driver = StorageDriver.memory.rawValue
        case .bind(let path): (driver, self.path) = (StorageDriver.bind.rawValue, path)
        }
    }

    init(_ device: SandboxPlan.BlockDevice) {
        self.init()
        (driver, source, readonly) = (StorageDriver.device.rawValue, device.disk.id, device.disk.readOnly)
        node = .with {
            ($0.path, $0.mode, $0.uid, $0.gid) = (device.path, device.mode, device.uid, device.gid)
            ($0.hostMajor, $0.hostMinor) = (device.major, device.minor)
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
        propagates = share.propagates
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
