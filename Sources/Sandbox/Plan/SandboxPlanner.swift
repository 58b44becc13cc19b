public import Hypervisor
import LinuxSystem
import Logging
public import OCISpec
import VMMControl

extension SandboxPlan {
    /// Plans a new pod with one container: reads the host and the bundle, changes nothing.
    ///
    /// - Throws: what is wrong with the bundle, the configuration or the host, by name.
    public init(id: String, bundle: Bundle, configuration: Configuration) throws {
        try self.init(id: id, bundle: bundle, rootfs: [], configuration: configuration)
    }

    /// Plans a new pod with one container whose root file system an engine's snapshotter describes.
    ///
    /// - Parameter rootfs: empty: it is in the bundle.
    package init(id: String, bundle: Bundle, rootfs: [RootMount], configuration: Configuration) throws {
        var bundle = bundle
        bundle.spec.linux?.removeHostsNamespaces()
        let spec = bundle.spec
        let cgroup = try HostCgroupPath.of(spec, id: id, configuration)
        let request = PodRequest(spec)
        let namespaces = request.isSandbox ? spec.linux?.podNamespaces ?? [] : []
        var (container, warnings) = try Container.planned(
            id: id, bundle: bundle, rootfs: rootfs, configuration,
            owners: Dictionary(namespaces.map { ($0, .sandbox) }, uniquingKeysWith: { first, _ in first }))
        if request.isSandbox { container.spec.linux?.shareIPC() }
        try self.init(
            id: container.id, hostname: spec.hostname, network: Network(spec), cgroup: cgroup,
            sizing: Sizing(of: spec, configuration), configuration: configuration)
        cgroupLimits = try HostCgroupLimits(
            spec, request, machineMiB: sizing.memoryMiB, hostMiB: configuration.vm.hostMiB, bound: cgroupLimits,
            above: cgroup.flatMap { HostLimits.leastMemory(above: $0.path) })
        self.container = container
        self.namespaces = namespaces
        self.warnings = warnings
    }

    /// A host name made from an id. The kernel takes 64 bytes; kubelet cuts names to 63, and none may end with a dash or dot.
    static func hostname(fromID id: String) -> String {
        if id.utf8.count <= 64 { return id }
        var name = Substring(id.prefix(63))
        while name.last == "-" || name.last == "." { name.removeLast() }
        return String(name)
    }

    /// Plans a new pod whose containers come later.
    ///
    /// - Parameters:
    ///   - hostname: empty: the id.
    ///   - cgroup: the control group for the pod's processes; nil: one of its own.
    ///   - isTemplateExact: no template of a smaller machine is used.
    init(
        id: String, hostname: String, network: Network, cgroup: HostCgroupPath?, sizing: Sizing,
        configuration: Configuration, isTemplateExact: Bool = false
    ) throws {
        self.id = try ContainerID(id).value
        try network.check()
        let facts = HostFacts.gather(configuration, isForReport: false)
        driver = try facts.chooseDriver(
            configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue,
            vhostNet: configuration.qemu.vhostNet, libvirtURI: configuration.libvirt.uri)
        self.network = network
        filtersSources = configuration.network.sourceFilter
        self.hostname = hostname.isEmpty ? Self.hostname(fromID: id) : hostname
        warnings = []
        // A host without cgroups runs the pod without.
        self.cgroup = try cgroup ?? .own(id: id)
        let image = try GuestImage.locate(configuration.vm)
        self.sizing = sizing
        if let least = image.minimumMemoryMiB, sizing.memoryMiB < least {
            throw SandboxError.invalid(
                "\(sizing.reason): \(sizing.memoryMiB) MiB are less than the \(least) MiB that the guest kernel "
                    + "\(image.kernel) needs")
        }
        let debug = configuration.vm.debugConsole ? ["earlyprintk=serial", "console=ttyS0"] : []
        machine = VMConfiguration(
            name: id, vcpus: sizing.vcpus, memoryMiB: sizing.memoryMiB, kernel: image.kernel,
            initramfs: image.initramfs,
            kernelArguments: debug + driver.kernelArguments + configuration.vm.kernelArguments,
            debugConsole: configuration.vm.debugConsole)
        cgroupLimits = HostCgroupLimits(bounding: machine, driver, hostMiB: configuration.vm.hostMiB)
        machine.rootImage = image.rootImage
        machine.hugePages = configuration.vm.hugePages
        machine.cpu = GuestCPU(profile: configuration.vm.cpu, nested: configuration.vm.nested)
        try driver.check(configuration.vm.cpu)
        machine.reportsFreePages = configuration.memory.reporting
        machine.allowsDeviceNodes = configuration.files.deviceNodes
        machine.makeRoom(configuration)
        if let found = try TemplateStore.template(
            for: machine, driver, configuration.template, isExact: isTemplateExact)
        {
            machine.template = found.template
            // It grows to what the plan says.
            (machine.vcpus, machine.memoryMiB) = (found.shape.vcpus, found.shape.memoryMiB)
        }
        if case .absent(let reason) = facts.kernel { throw HypervisorError(reason) }
    }

    /// The driver of this plan.
    func makeDriver(logger: Logger) -> any HypervisorDriver { driver.makeDriver(logger: logger) }
}

extension HostCgroupPath {
    /// The cgroup of a container's processes on the host: the one that the bundle names, or one of its own in
    /// `cgroup.parent`.
    static func of(_ spec: Spec?, id: String, _ configuration: Configuration) throws -> HostCgroupPath? {
        if let parent = configuration.cgroup.parent { return try HostCgroupPath(path: "\(parent)/\(id)") }
        return try HostCgroupPath(spec?.linux?.cgroupsPath ?? "")
    }
}

extension HostFacts {
    /// Looks at this host for what the configuration names.
    public static func of(_ configuration: Configuration) -> HostFacts { gather(configuration, isForReport: false) }

    static func gather(_ configuration: Configuration, isForReport: Bool) -> HostFacts {
        func file(_ locate: () throws -> String) -> Result<String, HypervisorError> {
            do { return .success(try locate()) } catch { return .failure(HypervisorError("\(error)")) }
        }
        return gather(
            qemu: configuration.qemu.path, kernel: file { try GuestImage.locateKernel(configuration.vm) },
            initramfs: file { try GuestImage.locateInitramfs(configuration.vm) }, isForReport: isForReport)
    }
}

/// What `martlet check` prints, and whether containers can be run.
public func hostReport(_ configuration: Configuration) -> (lines: [CheckLine], usable: Bool) {
    let lines = HostFacts.gather(configuration, isForReport: true)
        .lines(driver: configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue)
    return (lines, !lines.contains { $0.verdict == .missing })
}
