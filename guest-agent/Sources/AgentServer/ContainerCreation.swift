import AgentAPI
import AgentContract
import ContainerInit
import ContainerPlan
import GuestSystem
import LinuxSystem
import OCISpec

/// Makes a container: all or nothing.
struct ContainerCreation: Sendable {
    struct Parts: Sendable {
        var spec: Spec
        var plan: ContainerPlan
        var storages: Storages
        var sockets: ForwardedSockets
        var group: Cgroup
        var freezeLimit: Duration
        var process: ContainerProcess
    }

    let id: String
    let configuration: AgentConfiguration
    let launcher: InitLauncher
    let table: StreamTable
    let volumes: Volumes
    /// The first processes of the other containers.
    let others: [String: GuestProcess]
    /// Of the host's call; nil: it is not traced.
    let spans: CallSpans?

    /// Blocks until the container waits for its start.
    func make(_ request: AgentCreateContainerRequest) throws(AgentFailure) -> Parts {
        var spec: Spec
        do throws(SpecError) {
            spec = try JSON.decode(Spec.self, from: Array(request.specJson), file: "config.json")
        } catch {
            throw AgentFailure(.invalidArgument, error.description)
        }
        for storage in request.storages where storage.driver == StorageDriver.device.rawValue {
            let number = try during("device \(storage.node.path)") { try Disks.number(serial: storage.source) }
            spec.add(storage.node, number)
        }
        var plan = try ContainerPlan(spec)
        plan.hooks.state.id = id
        plan.process.keepsLineFeeds = request.streams.keepsLineFeeds
        try during("read the kernel's file systems") { try FileSystemTypes() }.check(plan.mounts)
        let resources = spec.linux?.resources ?? Linux.Resources()
        let (limits, devices) = (try ResourcePlan(resources), try DeviceRules(resources.devices))
        var storages = Storages()
        var sockets = ForwardedSockets()
        var group: Cgroup?
        do throws(AgentFailure) {
            try spans.step("mount the shares") { () throws(AgentFailure) in
                if request.storages.contains(where: { $0.driver == StorageDriver.share.rawValue }) {
                    try Shares.mount(on: configuration.shares, wait: .seconds(10), isInit: configuration.isInit)
                }
            }
            try spans.step("mount the storages") { () throws(AgentFailure) in
                for storage in request.storages {
                    try storages.mount(storage, shares: configuration.shares, volumes: volumes)
                }
            }
            for socket in request.sockets { try sockets.add(socket, link: table.link) }
            let made = try spans.step("make its cgroup") { () throws(AgentFailure) -> Cgroup in
                let made = try during("make its cgroup") {
                    try Cgroup.make(id, below: configuration.controlGroup)
                }
                group = made
                try made.apply(limits)
                try made.guardDevices(devices)
                return made
            }
            let streams = try during("make its streams") {
                try ProcessStreams(
                    request.streams, terminal: plan.process.terminal, table: table,
                    stalled: configuration.faults.stallsStreams(spec))
            }
            let process = try spans.step("set the container up") { () throws(AgentFailure) -> ContainerProcess in
                try launcher.launch(.create(plan), streams: streams, group: made, others: others)
            }
            return Parts(
                spec: spec, plan: plan, storages: storages, sockets: sockets, group: made,
                freezeLimit: configuration.freezeLimit, process: process)
        } catch {
            var error = error
            if let kills = group?.oomKills, kills > 0 {
                error.message += "; linux.resources.memory.limit: too small to set the container up"
            }
            sockets.removeAll()
            throw undo(error, group, &storages)
        }
    }

    /// Removes what was made before `error`; a failure to do so is added to it.
    private func undo(_ error: AgentFailure, _ group: Cgroup?, _ storages: inout Storages) -> AgentFailure {
        var error = error
        do {
            try group?.remove()
        } catch {
            Console.report("\(error)")
        }
        do {
            try storages.unmountAll()
        } catch let failure {
            error.message += "; and then \(failure)"
        }
        return error
    }
}

extension Spec {
    /// Adds a disk of the machine as a device, in place of the host's: rules for that are for this one.
    fileprivate mutating func add(_ node: AgentStorageNode, _ number: (major: Int64, minor: Int64)) {
        var device = Linux.Device(
            path: node.path, type: "b", major: number.major, minor: number.minor, fileMode: node.mode)
        (device.uid, device.gid) = (node.uid, node.gid)
        linux?.devices.append(device)
        let rules = linux?.resources?.devices ?? []
        for (index, rule) in rules.enumerated()
        where rule.type == "b" && rule.major == node.hostMajor && rule.minor == node.hostMinor {
            linux?.resources?.devices[index].major = number.major
            linux?.resources?.devices[index].minor = number.minor
        }
    }
}
