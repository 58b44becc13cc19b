import Hypervisor
import OCISpec

/// A checkpoint that a pod is to go on from.
struct RestoredPod: Sendable {
    let checkpoint: Checkpoint
    let directory: CheckpointDirectory

    /// - Parameter path: absolute.
    init(path: String) throws {
        directory = try CheckpointDirectory(path: path)
        checkpoint = try directory.read()
    }

    /// Plans a pod that goes on from the checkpoint.
    ///
    /// - Parameters:
    ///   - id: the container's on the host; its agent goes on calling it by the name that it had.
    ///   - bundle: as it was when the container was made, but for paths on the host.
    /// - Throws: what of the bundle or of this host does not fit the checkpoint.
    func plan(id: String, bundle: Bundle, configuration: Configuration) throws -> SandboxPlan {
        var plan = try SandboxPlan(id: checkpoint.container.id, bundle: bundle, configuration: configuration)
        guard let container = plan.container else { throw SandboxError.failed("the plan has no container") }
        try check(container)
        plan.machine.vcpus = checkpoint.shape.vcpus
        plan.machine.memoryMiB = checkpoint.shape.memoryMiB
        plan.machine.maximumVCPUs = checkpoint.shape.maximumVCPUs
        plan.machine.maximumMemoryMiB = checkpoint.shape.maximumMemoryMiB
        try checkShape(of: plan)
        plan.id = try ContainerID(id).value
        plan.machine.name = plan.id
        plan.container?.id = plan.id
        plan.machine.template = directory.machine
        return plan
    }

    private func check(_ container: SandboxPlan.Container) throws {
        let (old, new) = (checkpoint.container, container)
        if !new.disks.isEmpty { throw SandboxError.unsupported("a checkpoint with disks") }
        guard old.shares.map(\.mountPoint) == new.shares.map(\.mountPoint) else {
            throw SandboxError.invalid(
                "config.json: mounts: other ones than the checkpoint has: "
                    + "\(new.spec.mounts.map(\.destination)), not \(old.spec.mounts.map(\.destination))")
        }
        guard old.sockets.map(\.mountPoint) == new.sockets.map(\.mountPoint) else {
            throw SandboxError.invalid("config.json: mounts: other sockets of the host than the checkpoint has")
        }
        guard new.spec.process?.terminal ?? false == checkpoint.terminal else {
            throw SandboxError.invalid(
                "config.json: process.terminal: the checkpoint is of a container with\(checkpoint.terminal ? "" : "out") one"
            )
        }
    }

    private func checkShape(of plan: SandboxPlan) throws {
        let shape = try TemplateShape.required(for: "restore", plan, tenant: checkpoint.shape.tenant)
        if let difference = checkpoint.shape.difference(from: shape) {
            throw SandboxError.invalid("checkpoint: \(difference)")
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
