import Hypervisor
import LinuxSystem
public import Logging
import OCISpec

/// Makes templates: boots a machine without anything of a pod, saves it, and tries what was saved.
public struct TemplateMaker: Sendable {
    private let configuration: Configuration
    private let logger: Logger

    /// How long the guest may still do what it does after its agent listens.
    private static let settlingTime = Duration.milliseconds(300)
    /// Name of the machine in process lists.
    private static let name = "template"

    public init(_ configuration: Configuration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    private var store: TemplateStore { TemplateStore(directory: configuration.template.directory) }

    /// Makes the template of a pod with so many vCPUs and so much memory.
    ///
    /// - Parameter isPatient: wait while another template is made.
    /// - Throws: what is missing on this host; nothing is left of the template then.
    public func make(vcpus: Int, memoryMiB: Int, isPatient: Bool = true) async throws -> TemplateStore.Entry {
        let plan = try plan(vcpus: vcpus, memoryMiB: memoryMiB)
        let shape = try TemplateShape.required(for: "a template", plan, tenant: configuration.template.tenant)
        return try await store.make(shape, limit: Int64(configuration.template.maxMiB) << 20, isPatient: isPatient) {
            template in
            let user = try takeUser()
            var machine = plan.machine
            machine.user = user.id
            machine.template = nil
            try await save(machine, to: template)
            withExtendedLifetime(user) {}
            try await start(plan, from: template).end()
        }
    }

    /// Starts a machine from a template and asks its agent for an answer.
    ///
    /// - Parameter name: the template's.
    /// - Throws: `SandboxError.notFound`, or why it can't be used.
    public func check(_ name: String) async throws {
        let (template, shape) = try store.template(named: name)
        let plan = try plan(vcpus: shape.vcpus, memoryMiB: shape.memoryMiB)
        guard try TemplateShape(plan.machine, tenant: shape.tenant) == shape else {
            throw SandboxError.failed(
                "template \(name): it was made of another kernel, initramfs, root image, configuration, CPU or version of Martlet"
            )
        }
        try await start(plan, from: template).end()
    }

    /// Starts a machine of a template's size.
    ///
    /// - Parameter fromTemplate: whether it starts from the template; else it boots.
    /// - Throws: `SandboxError.notFound` where there is no such template; why the machine did not start.
    public func start(vcpus: Int, memoryMiB: Int, fromTemplate: Bool) async throws -> ReadyMachine {
        let plan = try plan(vcpus: vcpus, memoryMiB: memoryMiB)
        if fromTemplate, plan.machine.template == nil {
            throw SandboxError.notFound("a template of \(vcpus) vCPUs and \(memoryMiB) MiB in \(store.directory)")
        }
        return try await start(plan, from: fromTemplate ? plan.machine.template : nil)
    }

    private func start(_ plan: SandboxPlan, from template: MachineTemplate?) async throws -> ReadyMachine {
        try await ReadyMachine.start(plan, from: template, user: takeUser(), configuration, logger: logger)
    }

    private func takeUser() throws -> PodUser {
        try PodUser.take(configuration.jail, file: PodUser.file(root: configuration.paths.root))
    }

    private func plan(vcpus: Int, memoryMiB: Int) throws -> SandboxPlan {
        try SandboxPlan(
            id: Self.name, hostname: "", network: .new, cgroup: nil,
            sizing: Sizing(vcpus: vcpus, memoryMiB: memoryMiB, reason: "the template's memory"),
            configuration: configuration)
    }

    /// Boots a machine, and saves it when its agent is ready.
    private func save(_ configuration: VMConfiguration, to template: MachineTemplate) async throws {
        let machine = try await onThread("machine") { [logger] in try KVMDriver(logger: logger).launch(configuration) }
        let result: Result<Void, any Error>
        do {
            try await machine.agentReady(within: self.configuration.agent.startTimeout)
            try await Task.sleep(for: Self.settlingTime)
            try await onThread("save machine") {
                try machine.pause()
                try machine.save(to: template, withShares: false)
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        let state = machine.state
        machine.kill(.ended("it has been saved"))
        let end = await machine.end()
        if state != .running, state != .paused {
            throw SandboxError.machineEnded(reason: "\(end)", console: machine.consoleTail)
        }
        try result.get()
    }
}
