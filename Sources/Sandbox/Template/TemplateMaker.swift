import Hypervisor
import LinuxSystem
public import Logging
import OCISpec

/// Makes templates: boots a machine without anything of a pod, saves it, and tries what was saved.
public struct TemplateMaker: Sendable {
    private let configuration: Configuration
    private let logger: Logger
    private let driver: KVMDriver

    /// How long the guest may still do what it does after its agent listens.
    private static let settlingTime = Duration.milliseconds(300)
    /// Name of the machine in process lists.
    private static let name = "template"

    public init(_ configuration: Configuration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
        driver = KVMDriver(logger: logger)
    }

    private var store: TemplateStore { TemplateStore(directory: configuration.template.directory) }

    /// Makes the template of a pod with so many vCPUs and so much memory.
    ///
    /// - Throws: what is missing on this host; nothing is left of the template then.
    public func make(vcpus: Int, memoryMiB: Int) async throws -> TemplateStore.Entry {
        let plan = try plan(vcpus: vcpus, memoryMiB: memoryMiB)
        guard case .builtIn = plan.driver else {
            throw SandboxError.unsupported("a template with \(plan.driver)")
        }
        guard let shape = try TemplateShape(plan.machine, tenant: configuration.template.tenant) else {
            throw SandboxError.unsupported(
                "a template of this machine (\(TemplateShape.objection(to: plan.machine) ?? ""))")
        }
        let user = try PodUser.take(configuration.jail, file: PodUser.file(root: configuration.paths.root))
        return try await store.make(shape, limit: Int64(configuration.template.maxMiB) << 20) { template in
            var machine = plan.machine
            machine.user = user.id
            machine.template = nil
            machine.isSavable = true
            try await save(machine, to: template)
            machine.isSavable = false
            try await check(template, plan, machine)
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
        let user = try PodUser.take(configuration.jail, file: PodUser.file(root: configuration.paths.root))
        var machine = plan.machine
        machine.user = user.id
        try await check(template, plan, machine)
    }

    private func plan(vcpus: Int, memoryMiB: Int) throws -> SandboxPlan {
        try SandboxPlan(
            id: Self.name, hostname: "", network: .new, cgroup: nil,
            sizing: Sizing(vcpus: vcpus, memoryMiB: memoryMiB, reason: "the template's memory"),
            configuration: configuration)
    }

    // MARK: Steps

    private func save(_ configuration: VMConfiguration, to template: MachineTemplate) async throws {
        try await running(configuration) { machine in
            try await machine.agentReady(within: self.configuration.agent.startTimeout)
            guard machine.state == .running else { return }
            try await Task.sleep(for: Self.settlingTime)
            try await onThread("save machine") {
                try machine.pause()
                try machine.save(to: template)
            }
        }
    }

    private func check(_ template: MachineTemplate, _ plan: SandboxPlan, _ configuration: VMConfiguration) async throws
    {
        var configuration = configuration
        configuration.template = template
        try await running(configuration) { machine in
            let client = try await AgentLink(machine: machine).agent(within: self.configuration.agent.startTimeout) {
                machine.state == .running
            }
            try await GuestAgent(client: client, timeout: self.configuration.agent.requestTimeout).prepare(plan)
        }
    }

    /// Runs a machine as long as `body` does.
    private func running(
        _ configuration: VMConfiguration, _ body: (any VirtualMachine) async throws -> Void
    ) async throws {
        let driver = driver
        let machine = try await onThread("machine") { try driver.launch(configuration) }
        let result: Result<Void, any Error>
        do { result = .success(try await body(machine)) } catch { result = .failure(error) }
        let ended = machine.state
        machine.kill(.ended("the template is done"))
        let end = await machine.end()
        try result.get()
        if ended != .running, ended != .paused {
            throw SandboxError.machineEnded(reason: "\(end)", console: machine.consoleTail)
        }
    }
}
