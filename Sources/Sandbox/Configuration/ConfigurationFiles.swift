import Glibc
import Hypervisor
import LinuxSystem

extension Configuration {
    /// The file that is read when no other is named. It need not exist.
    public static let standardFile = "/etc/martlet/martlet.toml"
    /// The least memory in which kernel and initramfs fit, MiB.
    public static let minimumMemoryMiB = 96
    /// As much as guest physical addresses are laid out for, in MiB.
    public static let maximumMemoryMiB = 1 << 20
    private static let maximumFileSize = 1 << 20

    /// Reads the configuration: `file`, and then the drop-ins, which are all `*.toml` in the directory `martlet.d` beside it, in the
    /// order of their names. Later files override earlier ones, key by key.
    ///
    /// - Parameters:
    ///   - file: must exist; nil: the standard file, which need not.
    ///   - annotations: a bundle's annotations. One that starts with `io.martlet.` changes the key that it names, if
    ///     `engine.annotations` lists the key.
    /// - Throws: `ConfigurationError` with file and key.
    public static func load(
        file: String? = nil, annotations: [String: String] = [:]
    ) throws(ConfigurationError) -> Configuration {
        let main = file ?? standardFile
        var tree = SettingTree()
        if let text = try read(main, mayBeMissing: file == nil) { try tree.merge(text, file: main) }
        for dropIn in try dropIns(beside: main) {
            if let text = try read(dropIn, mayBeMissing: false) { try tree.merge(text, file: dropIn) }
        }
        let configuration = try Configuration(tree)
        let changes = annotations.filter { $0.key.hasPrefix(annotationPrefix) }
        if changes.isEmpty { return configuration }
        for (name, value) in changes.sorted(by: { $0.key < $1.key }) {
            let key = String(name.dropFirst(annotationPrefix.count))
            guard configuration.engine.annotations.contains(key) else {
                throw ConfigurationError(
                    subject: "annotation \(name)",
                    reason: "not allowed (engine.annotations of the configuration does not have \(key))")
            }
            tree.set(key, text: value, file: "annotation \(name)")
        }
        return try Configuration(tree)
    }

    /// The prefix of annotations that change a key of the configuration.
    static let annotationPrefix = "io.martlet."

    /// Whether a bundle's annotations change keys of the configuration.
    package static func isChanged(by annotations: [String: String]) -> Bool {
        annotations.keys.contains { $0.hasPrefix(annotationPrefix) }
    }

    init(_ tree: SettingTree) throws(ConfigurationError) {
        self.init()
        var reader = ConfigurationReader(tree)
        try reader.choice(
            "hypervisor", refused: LibvirtDriver.objection.map { ("libvirt", $0) }, into: &hypervisor)
        try reader.integer("vm.vcpus", 1...32, into: &vm.vcpus)
        try reader.integer(
            "vm.memory_mib", Self.minimumMemoryMiB...Self.maximumMemoryMiB, unit: "MiB", into: &vm.memoryMiB)
        try reader.integer("vm.max_vcpus", 1...32, zeroIsUnset: true, into: &vm.maximumVCPUs)
        try reader.integer(
            "vm.max_memory_mib", Self.minimumMemoryMiB...Self.maximumMemoryMiB, unit: "MiB", zeroIsUnset: true,
            into: &vm.maximumMemoryMiB)
        try reader.integer("vm.overhead_mib", 0...65536, unit: "MiB", into: &vm.overheadMiB)
        try reader.integer("vm.host_mib", 0...65536, unit: "MiB", into: &vm.hostMiB)
        try reader.path("vm.kernel", emptyIsUnset: true, into: &vm.kernel)
        try reader.path("vm.initramfs", emptyIsUnset: true, into: &vm.initramfs)
        try reader.words("vm.kernel_arguments", into: &vm.kernelArguments)
        try reader.boolean("vm.debug_console", into: &vm.debugConsole)
        try reader.boolean("vm.huge_pages", into: &vm.hugePages)
        try reader.choice("vm.cpu", into: &vm.cpu)
        try reader.boolean("vm.nested", into: &vm.nested)
        try reader.boolean("memory.reporting", into: &memory.reporting)
        try reader.boolean("memory.reclaim", into: &memory.reclaim)
        try reader.duration("memory.idle_s", 1...86_400, unit: "s", { .seconds($0) }, into: &memory.idle)
        try reader.integer("memory.floor_mib", 0...Self.maximumMemoryMiB, unit: "MiB", into: &memory.floorMiB)
        var qemuPath: String? = qemu.path
        try reader.string("qemu.path", into: &qemuPath)
        qemu.path = qemuPath ?? qemu.path
        try reader.choice("qemu.accel", into: &qemu.accelerator)
        try reader.boolean("qemu.vhost_net", into: &qemu.vhostNet)
        var uri: String? = libvirt.uri
        try reader.string("libvirt.uri", into: &uri)
        libvirt.uri = uri ?? libvirt.uri
        let seconds = { (count: Int) in Duration.seconds(count) }
        let milliseconds = { (count: Int) in Duration.milliseconds(count) }
        try reader.duration("agent.start_timeout_s", 1...3600, unit: "s", seconds, into: &agent.startTimeout)
        try reader.duration("agent.request_timeout_s", 1...3600, unit: "s", seconds, into: &agent.requestTimeout)
        try reader.duration("agent.kill_timeout_s", 1...3600, unit: "s", seconds, into: &agent.killTimeout)
        try reader.duration(
            "agent.heartbeat_interval_ms", 50...60_000, unit: "ms", milliseconds, into: &agent.heartbeatInterval)
        try reader.duration(
            "agent.heartbeat_timeout_ms", 100...600_000, unit: "ms", milliseconds, into: &agent.heartbeatTimeout)
        try reader.words("engine.options", into: &engine.options)
        try reader.words("engine.annotations", into: &engine.annotations)
        try reader.path("cgroup.parent", emptyIsUnset: true, into: &cgroup.parent)
        var copyLimitMiB = volumes.copyLimit >> 20
        try reader.integer("volumes.copy_limit_mib", 1...256, unit: "MiB", into: &copyLimitMiB)
        volumes.copyLimit = copyLimitMiB << 20
        try reader.boolean("files.device_nodes", into: &files.deviceNodes)
        try reader.boolean("files.nosuid", into: &files.nosuid)
        try reader.boolean("network.source_filter", into: &network.sourceFilter)
        try reader.boolean("sockets.forward", into: &sockets.forward)
        try reader.integer("jail.first_user", 1...Int(Int32.max) - 1, into: &jail.firstUser)
        try reader.integer("jail.users", 1...1 << 20, into: &jail.users)
        try reader.choice("template.mode", into: &template.mode)
        var templates: String? = template.directory
        try reader.path("template.directory", into: &templates)
        template.directory = templates ?? template.directory
        try reader.integer("template.max_mib", 64...1 << 30, unit: "MiB", into: &template.maxMiB)
        var tenant: String?
        try reader.string("template.tenant", emptyIsUnset: true, into: &tenant)
        template.tenant = tenant ?? template.tenant
        try reader.integer("pool.size", 0...1000, into: &pool.size)
        var machines: String? = pool.directory
        try reader.path("pool.directory", into: &machines)
        pool.directory = machines ?? pool.directory
        try reader.string("trace.otlp_endpoint", emptyIsUnset: true, into: &trace.otlpEndpoint)
        var root: String? = paths.root
        try reader.path("paths.root", into: &root)
        paths.root = root ?? paths.root
        try reader.choice("spec.ineffective_limits", into: &spec.ineffectiveLimits)
        try reader.choice("spec.labels", into: &spec.labels)
        try reader.choice("spec.host_devices", into: &spec.hostDevices)
        try reader.choice("spec.host_namespaces", into: &spec.hostNamespaces)
        try reader.refuseTables()
        try reader.refuseUnknown()
        if let endpoint = trace.otlpEndpoint, CollectorAddress(endpoint) == nil {
            throw ConfigurationError(
                subject: tree.settings["trace.otlp_endpoint"]?.file ?? "", place: "trace.otlp_endpoint",
                reason: "\"\(endpoint)\" is not http://HOST[:PORT][/PATH]")
        }
        guard jail.firstUser + jail.users <= Int(Int32.max) else {
            throw ConfigurationError(
                subject: tree.settings["jail.users"]?.file ?? tree.settings["jail.first_user"]?.file ?? "",
                place: "jail.users", reason: "\(jail.users) users from \(jail.firstUser) on end above \(Int32.max)")
        }
        guard agent.heartbeatTimeout > agent.heartbeatInterval else {
            let keys = ["agent.heartbeat_timeout_ms", "agent.heartbeat_interval_ms"]
            throw ConfigurationError(
                subject: keys.compactMap { tree.settings[$0]?.file }.first ?? "", place: keys[0],
                reason: "must be more than \(keys[1])")
        }
    }

    static func dropIns(beside file: String) throws(ConfigurationError) -> [String] {
        let parent = file.lastIndex(of: "/").map { String(file[...$0]) } ?? ""
        let path = parent + "martlet.d"
        do throws(SystemError) {
            return try directoryNames(path).filter { $0.hasSuffix(".toml") && !$0.hasPrefix(".") }.sorted()
                .map { "\(path)/\($0)" }
        } catch {
            if [.noSuchFileOrDirectory, .notDirectory].contains(error.errno) { return [] }
            throw ConfigurationError(subject: path, reason: String(cString: strerror(error.errno.rawValue)))
        }
    }

    static func read(_ path: String, mayBeMissing: Bool) throws(ConfigurationError) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if mayBeMissing && errno == ENOENT { return nil }
            throw ConfigurationError(subject: path, reason: String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        var facts = stat()
        guard fstat(descriptor, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG else {
            throw ConfigurationError(subject: path, reason: "not a regular file")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            if count < 0 { throw ConfigurationError(subject: path, reason: String(cString: strerror(errno))) }
            if count == 0 { break }
            bytes += chunk[..<count]
            if bytes.count > maximumFileSize { throw ConfigurationError(subject: path, reason: "larger than 1 MiB") }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ConfigurationError(subject: path, reason: "not UTF-8 text")
        }
        return text
    }
}
