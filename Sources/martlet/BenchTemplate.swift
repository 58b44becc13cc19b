import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import Logging
import Sandbox

/// The side of `martlet bench pod` whose pods start from a template, and the configuration of the side whose pods boot.
struct BenchTemplate {
    static let handler = "martlet-template"
    static let poolHandler = "martlet-pool"
    /// The shims that containerd looks for then.
    static func runtimeType(_ handler: String) -> String { "io.containerd.\(handler).v2" }

    /// Takes the template, the configurations and the shims. It must be in containerd's PATH.
    let directory: String
    /// What the bench was given; nil: the standard file.
    let configurationFile: String?
    /// Lines of TOML that override that.
    var settings = ""

    /// Makes the configuration of pods that boot.
    ///
    /// - Returns: its file.
    func coldConfiguration() throws -> String {
        try Configuration.copy(
            file: configurationFile, to: "\(directory)/cold", with: settings + "template.mode = \"off\"\n")
    }

    /// Makes the configuration of pods of one hypervisor.
    ///
    /// - Parameter usesTemplate: they start from a template, which is made.
    /// - Returns: its file, and what the hypervisor is here.
    /// - Throws: where that runs no machines here.
    func configuration(
        of driver: String, usesTemplate: Bool, _ logger: Logger
    ) async throws -> (file: String, driver: DriverChoice) {
        var own = self
        own.settings = "hypervisor = \"\(driver)\"\n" + settings
        let file = try own.coldConfiguration()
        let configuration = try Configuration.load(file: file)
        _ = try GuestImage.locate(configuration.vm)
        let choice = try HostFacts.of(configuration).chooseDriver(
            driver, accelerator: configuration.qemu.accelerator.rawValue)
        return (usesTemplate ? try await own.make(logger: logger).file : file, choice)
    }

    /// Makes the template of a pod without limits.
    ///
    /// - Returns: the configuration of pods that start from it, its file, and the template's name.
    func make(logger: Logger) async throws -> (file: String, configuration: Configuration, template: String) {
        let file = try Configuration.copy(
            file: configurationFile, to: "\(directory)/template",
            with: settings + "template.mode = \"on\"\ntemplate.directory = \"\(directory)/templates\"\n")
        let configuration = try Configuration.load(file: file)
        let template = try await TemplateMaker(configuration, logger: logger)
            .make(vcpus: configuration.vm.vcpus, memoryMiB: configuration.vm.memoryMiB).name
        return (file, configuration, template)
    }

    /// Makes the template.
    ///
    /// - Returns: a side for each of the handlers that starts pods from it.
    func sides(_ handlers: [String], logger: Logger) async throws -> [String: PodBench.Side] {
        let wanted = handlers.filter { $0 == Self.handler || $0 == Self.poolHandler }
        if wanted.isEmpty { return [:] }
        let (file, configuration, template) = try await make(logger: logger)
        var sides: [String: PodBench.Side] = [:]
        for handler in wanted {
            let isPooled = handler == Self.poolHandler
            // The others have no pool.
            try writeShim(handler, configurationFile: isPooled ? poolConfiguration(file) : file)
            let name = isPooled ? "martlet from the pool" : "martlet from a template"
            sides[handler] = PodBench.Side(name, handler: handler) { sandbox in
                let pod = PodList.all(root: configuration.paths.root).first { $0.id == sandbox }
                guard pod?.template == template, pod?.isFromPool == isPooled else {
                    throw BenchError("pod \(sandbox) has not started from \(isPooled ? "the pool" : template)")
                }
            }
        }
        return sides
    }

    /// The configuration of the side whose pods come from the pool: a file, and its drop-in.
    private var poolDirectory: String { "\(directory)/pool" }

    /// What has a machine ready: arguments of `martlet`.
    var fillArguments: [String] { ["--config", "\(poolDirectory)/martlet.toml", "pool", "fill"] }
    /// What ends one that no pod has taken.
    var drainArguments: [String] { ["--config", "\(poolDirectory)/martlet.toml", "pool", "drain"] }

    private func poolConfiguration(_ file: String) throws -> String {
        try Configuration.copy(
            file: file, to: poolDirectory, with: "pool.directory = \"\(directory)/ready\"\n")
    }

    /// Martlet's shim with another configuration.
    private func writeShim(_ handler: String, configurationFile: String) throws {
        let path = "\(directory)/containerd-shim-\(handler)-v2"
        try Data(
            "#!/bin/sh\nexport MARTLET_CONFIG='\(configurationFile)'\nexec containerd-shim-martlet-v2 \"$@\"\n".utf8
        ).write(to: URL(filePath: path))
        try check("chmod", path, chmod(path, 0o755))
    }
}
