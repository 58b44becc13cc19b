import Glibc
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

    /// The templates from which no pod can start as the configuration is now, and why.
    func unusable() -> [(name: String, objection: String)] {
        store.names().compactMap { name in
            do {
                let shape = try store.readShape(name)
                let plan = try plan(vcpus: shape.vcpus, memoryMiB: shape.memoryMiB)
                let current = try TemplateShape.required(for: "a template", plan, tenant: shape.tenant)
                for file in [store.path(of: name) + "/state", store.path(of: name) + "/memory"] {
                    guard access(file, R_OK) == 0 else { return (name, "\(file) is missing") }
                }
                return shape.difference(from: current).map { (name, $0) }
            } catch { return (name, "\(error)") }
        }
    }

    /// What a machine comes from.
    public enum Source: Sendable { case boot, template, pool }

    /// Does what comes before the start of a machine of a size.
    ///
    /// - Returns: the start. One from the pool is a machine's that has been restored here, and begins when it is taken.
    /// - Throws: `SandboxError.notFound` where there is no template of this size.
    public func prepareStart(
        vcpus: Int, memoryMiB: Int, _ source: Source
    ) async throws -> @Sendable () async throws -> ReadyMachine {
        let plan = try plan(vcpus: vcpus, memoryMiB: memoryMiB)
        switch source {
        case .boot: return { try await start(plan, from: nil) }
        case .template:
            guard let template = plan.machine.template else { throw missing(vcpus: vcpus, memoryMiB: memoryMiB) }
            return { try await start(plan, from: template) }
        case .pool:
            let held = try await hold(vcpus: vcpus, memoryMiB: memoryMiB)
            return { try await ReadyMachine.take(held, plan, configuration) }
        }
    }

    /// Starts a machine from the template of a size, and stops its vCPUs as soon as its agent listens.
    ///
    /// - Throws: `SandboxError.notFound` where there is no such template; why the machine did not start.
    package func hold(vcpus: Int, memoryMiB: Int) async throws -> ConnectedMachine {
        let plan = try plan(vcpus: vcpus, memoryMiB: memoryMiB)
        guard plan.machine.template != nil else { throw missing(vcpus: vcpus, memoryMiB: memoryMiB) }
        let machine = try await ConnectedMachine.start(
            plan.machine, user: takeUser(), within: configuration.agent.startTimeout, logger: logger)
        try await onThread("pause") { try machine.machine.pause() }
        return machine
    }

    /// The name of the template of a size, which is made where there is none.
    func need(vcpus: Int, memoryMiB: Int) async throws -> String {
        if let template = try plan(vcpus: vcpus, memoryMiB: memoryMiB).machine.template { return template.name }
        return try await make(vcpus: vcpus, memoryMiB: memoryMiB).name
    }

    private func missing(vcpus: Int, memoryMiB: Int) -> SandboxError {
        .notFound("a template of \(vcpus) vCPUs and \(memoryMiB) MiB in \(store.directory)")
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
            configuration: configuration, isTemplateExact: true)
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
