import Hypervisor
import OCISpec

/// A container that is to go on from a checkpoint.
package struct RestoredContainer: Sendable {
    /// Its id when it was saved; empty: the checkpoint has only one.
    package var name: String
    /// Its id from now on.
    package var id: String
    /// As it was when the container was made, but for paths on the host.
    package var bundle: Bundle
    /// The mounts that make its root file system; empty: it is in the bundle.
    package var rootfs: [RootMount]

    package init(name: String = "", id: String, bundle: Bundle, rootfs: [RootMount] = []) {
        (self.name, self.id, self.bundle, self.rootfs) = (name, id, bundle, rootfs)
    }
}

/// A checkpoint that a pod is to go on from, with its containers as they are to be on this host.
struct RestoredPod: Sendable {
    struct Member: Sendable {
        let saved: Checkpoint.Container
        /// With its id from now on.
        let plan: SandboxPlan.Container
        /// What the guest calls its volumes, by the names that they have on this host.
        let volumeNames: [String: String]
        let rootfs: RootMounts?
        fileprivate let request: RestoredContainer
    }

    /// The directory, an absolute path.
    let path: String
    let checkpoint: Checkpoint
    let directory: CheckpointDirectory
    /// In the order of the checkpoint's containers.
    let members: [Member]
    private let configuration: Configuration

    /// Reads a checkpoint, and plans its containers.
    ///
    /// - Parameters:
    ///   - path: of its directory, absolute.
    ///   - containers: one for each that the checkpoint has.
    /// - Throws: what of the checkpoint can't be read, and what of a bundle does not fit it, with the container's id.
    init(path: String, _ containers: [RestoredContainer], _ configuration: Configuration) throws {
        self.path = path
        self.configuration = configuration
        directory = try CheckpointDirectory(path: path)
        checkpoint = try directory.read()
        let requests = try checkpoint.match(containers)
        let isOne = requests.count == 1
        var members: [Member] = []
        for (saved, request) in zip(checkpoint.containers, requests) {
            do {
                let pods = members.first?.plan.sharedMemory
                members.append(try Self.member(saved, request, isFirst: members.isEmpty, pods, configuration))
            } catch {
                throw isOne ? error : SandboxError.invalid("container \(saved.id): \(error)")
            }
        }
        self.members = members
    }

    /// - Parameter pods: the shared memory of the pod's first container.
    private static func member(
        _ saved: Checkpoint.Container, _ request: RestoredContainer, isFirst: Bool, _ pods: SandboxPlan.SharedMemory?,
        _ configuration: Configuration
    ) throws -> Member {
        let bundle = request.bundle.inGuest(of: saved)
        var (plan, _) = try SandboxPlan.Container.planned(
            id: saved.plan.id, bundle: bundle, rootfs: request.rootfs, configuration)
        if !isFirst { try plan.separateSharedMemory(from: pods) }
        try plan.check(against: saved)
        var names: [String: String] = [:]
        for (index, volume) in zip(plan.podVolumes.indices, saved.plan.podVolumes) {
            names[plan.podVolumes[index].name] = volume.name
            plan.podVolumes[index].name = volume.name
        }
        plan.id = try ContainerID(request.id).value
        return Member(
            saved: saved, plan: plan, volumeNames: names,
            rootfs: RootMounts(request.rootfs, bundle: request.bundle), request: request)
    }

    /// Plans the pod.
    ///
    /// - Throws: what of this host does not fit the checkpoint.
    func plan() throws -> SandboxPlan {
        guard let first = members.first else { throw SandboxError.invalid("checkpoint.json: containers: none") }
        var plan = try SandboxPlan(
            id: first.saved.plan.id, bundle: first.request.bundle.inGuest(of: first.saved),
            rootfs: first.request.rootfs, configuration: configuration)
        plan.machine.vcpus = checkpoint.shape.vcpus
        plan.machine.memoryMiB = checkpoint.shape.memoryMiB
        plan.machine.maximumVCPUs = checkpoint.shape.maximumVCPUs
        plan.machine.maximumMemoryMiB = checkpoint.shape.maximumMemoryMiB
        try checkShape(of: plan)
        try checkDiskFiles()
        plan.id = first.plan.id
        plan.machine.name = plan.id
        plan.container = first.plan
        plan.machine.template = directory.machine
        return plan
    }

    private func checkShape(of plan: SandboxPlan) throws {
        let shape = try TemplateShape.required(for: "restore", plan, tenant: checkpoint.shape.tenant)
        if let difference = checkpoint.shape.difference(from: shape) {
            throw SandboxError.invalid("checkpoint: \(difference)")
        }
    }

    /// What the guest has read of a disk it takes for what is on it.
    private func checkDiskFiles() throws {
        for path in Set(members.flatMap(\.plan.disks).flatMap(\.parts).map(\.path)).sorted() {
            guard let saved = checkpoint.diskFiles.first(where: { $0.path == path }) else {
                throw SandboxError.invalid("checkpoint.json: diskFiles: \(path): missing")
            }
            let file = try TemplateShape.File(path)
            guard file == saved else { throw SandboxError.invalid("checkpoint: disk \(path): it has changed") }
        }
    }
}

extension Checkpoint {
    /// The containers that are asked for in the order of those that were saved.
    ///
    /// - Throws: `SandboxError.invalid` where one is missing, is not in the checkpoint, or has the id of another.
    fileprivate func match(_ requests: [RestoredContainer]) throws -> [RestoredContainer] {
        let names = containers.map(\.id)
        if requests.count == 1, requests[0].name.isEmpty {
            if names.count == 1 { return requests }
            throw SandboxError.invalid(
                "the checkpoint is of a pod with containers \(names) (martlet pod restore has all of them go on)")
        }
        for request in requests where !names.contains(request.name) {
            throw SandboxError.invalid("container \(request.name): not in the checkpoint, which has \(names)")
        }
        for (field, values) in [("name", requests.map(\.name)), ("id", requests.map(\.id))]
        where Set(values).count != values.count {
            throw SandboxError.invalid("containers: two of the same \(field)")
        }
        return try names.map { name in
            guard let request = requests.first(where: { $0.name == name }) else {
                throw SandboxError.invalid("container \(name) of the checkpoint: it must go on too")
            }
            return request
        }
    }
}

extension Bundle {
    /// The bundle with the namespaces that the container has in its guest: paths of the host that it had are of processes that have gone.
    fileprivate func inGuest(of saved: Checkpoint.Container) -> Bundle {
        var bundle = self
        let network = bundle.spec.linux?.namespaces.filter { $0.kind == .network } ?? []
        bundle.spec.linux?.namespaces = (saved.plan.spec.linux?.namespaces ?? []) + network
        return bundle
    }
}

extension SandboxPlan.Container {
    /// - Throws: `SandboxError.invalid` where the guest of the saved one has something else.
    fileprivate func check(against saved: Checkpoint.Container) throws {
        let old = saved.plan
        guard old.shares.map(\.mountPoint) == shares.map(\.mountPoint) else {
            throw SandboxError.invalid(
                "config.json: mounts: other ones than the checkpoint has: "
                    + "\(spec.mounts.map(\.destination)), not \(old.spec.mounts.map(\.destination))")
        }
        guard old.sockets.map(\.mountPoint) == sockets.map(\.mountPoint) else {
            throw SandboxError.invalid("config.json: mounts: other sockets of the host than the checkpoint has")
        }
        let volumes = { (plan: Self) in plan.podVolumes.map { "\($0.kind) \($0.part) \($0.mountPoint)" } }
        guard volumes(old) == volumes(self) else {
            throw SandboxError.invalid(
                "config.json: mounts: other volumes of a pod than the checkpoint has: "
                    + "\(podVolumes.map(\.title)), not \(old.podVolumes.map(\.title))")
        }
        guard old.disks == disks else {
            throw SandboxError.invalid(
                "config.json: other disks than the checkpoint has: "
                    + "\(disks.flatMap(\.parts).map(\.path)), not \(old.disks.flatMap(\.parts).map(\.path))")
        }
        guard spec.process?.terminal ?? false == saved.terminal else {
            throw SandboxError.invalid(
                "config.json: process.terminal: the checkpoint is of a container with\(saved.terminal ? "" : "out") one"
            )
        }
    }
}

extension TemplateShape {
    /// What differs from another shape, for people; nil: nothing.
    func difference(from other: TemplateShape) -> String? {
        if version != other.version { return "made by Martlet \(version), not \(other.version)" }
        if host != other.host { return "made on another host (\(host), not \(other.host))" }
        if kernel != other.kernel { return "made with another kernel than \(other.kernel.path)" }
        if initramfs != other.initramfs || rootImage != other.rootImage {
            return "made with another guest image than \((other.rootImage ?? other.initramfs)?.path ?? "none")"
        }
        if kernelArguments != other.kernelArguments { return "made with other arguments of the kernel" }
        if reportsFreePages != other.reportsFreePages {
            return "made with\(reportsFreePages ? "" : "out") memory.reporting"
        }
        if cpu != other.cpu { return "made with another CPU (vm.cpu, vm.nested): \(cpu), not \(other.cpu)" }
        return self == other ? nil : "made of another machine"
    }
}
