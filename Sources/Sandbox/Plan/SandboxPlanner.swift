public import Hypervisor
import LinuxSystem
import Logging
public import OCISpec

extension SandboxPlan {
    /// Plans a new pod with one container: reads the host and the bundle, changes nothing.
    ///
    /// - Throws: what is wrong with the bundle, the configuration or the host, by name.
    public init(id: String, bundle: Bundle, configuration: Configuration) throws {
        let id = try ContainerID(id).value
        let findings = bundle.spec.unsupported()
        if let refused = findings.first(where: { $0.verdict == .refuse }) {
            throw SandboxError.unsupported("config.json: \(refused)")
        }
        warnings = findings.map { "config.json: \($0)" }
        container = try Container(id: id, bundle: bundle)
        let facts = HostFacts.gather(configuration, askVersions: false)
        driver = try facts.chooseDriver(
            configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue)
        network = Network(bundle.spec)
        hostname = bundle.spec.hostname.isEmpty ? id : bundle.spec.hostname
        let image = try GuestImage.locate(configuration.vm)
        if let least = image.minimumMemoryMiB, configuration.vm.memoryMiB < least {
            throw SandboxError.invalid(
                "vm.memory_mib: \(configuration.vm.memoryMiB) MiB are less than the \(least) MiB that the guest kernel "
                    + "\(image.kernel) needs")
        }
        let debug = configuration.vm.debugConsole ? ["earlyprintk=serial", "console=ttyS0"] : []
        machine = VMConfiguration(
            name: id, vcpus: configuration.vm.vcpus, memoryMiB: configuration.vm.memoryMiB, kernel: image.kernel,
            initramfs: image.initramfs,
            kernelArguments: debug + driver.kernelArguments + configuration.vm.kernelArguments,
            debugConsole: configuration.vm.debugConsole, disks: container.volumes.map(\.disk))
        machine.hugePages = configuration.vm.hugePages
        if case .absent(let reason) = facts.kernel { throw HypervisorError(reason) }
    }

    /// The driver of this plan.
    func makeDriver(logger: Logger) throws -> any HypervisorDriver {
        if driver.driver == "kvm" { return KVMDriver(logger: logger) }
        guard let accelerator = QEMUDriver.Accelerator(rawValue: driver.accelerator), let executable = driver.executable
        else { throw SandboxError.invalid("qemu.accel: \(driver.accelerator) is none of kvm, tcg") }
        return QEMUDriver(executable: executable, accelerator: accelerator, logger: logger)
    }
}

extension HostFacts {
    /// Looks at this host for what the configuration names.
    public static func of(_ configuration: Configuration) -> HostFacts { gather(configuration, askVersions: false) }

    static func gather(_ configuration: Configuration, askVersions: Bool) -> HostFacts {
        func file(_ locate: () throws -> String) -> Result<String, HypervisorError> {
            do { return .success(try locate()) } catch { return .failure(HypervisorError("\(error)")) }
        }
        return gather(
            qemu: configuration.qemu.path, kernel: file { try GuestImage.locateKernel(configuration.vm) },
            initramfs: file { try GuestImage.locateInitramfs(configuration.vm) }, askVersions: askVersions)
    }
}

/// What `martlet check` prints, and whether containers can be run.
public func hostReport(_ configuration: Configuration) -> (lines: [CheckLine], usable: Bool) {
    let lines = HostFacts.gather(configuration, askVersions: true)
        .lines(driver: configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue)
    return (lines, !lines.contains { $0.verdict == .missing })
}

extension Configuration {
    /// The agent's deadlines.
    var limits: Pod.Limits {
        Pod.Limits(
            start: agent.startTimeout, request: agent.requestTimeout, heartbeatInterval: agent.heartbeatInterval,
            heartbeatLimit: agent.heartbeatTimeout)
    }
}
