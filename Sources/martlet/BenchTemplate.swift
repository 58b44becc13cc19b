import Bench
import FoundationEssentials
import Glibc
import LinuxSystem
import Logging
import Sandbox

/// The side of `martlet bench pod` whose pods start from a template, and the configuration of the side whose pods boot.
struct BenchTemplate {
    static let handler = "martlet-template"
    /// containerd looks for `shim` then.
    static let runtimeType = "io.containerd.martlet-template.v2"
    private static let shim = "containerd-shim-martlet-template-v2"

    /// Takes the template, the configurations and the shim. It must be in containerd's PATH.
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

    /// Makes the template, and a shim that uses it: Martlet's, with another configuration.
    func side(logger: Logger) async throws -> PodBench.Side {
        let (file, configuration, template) = try await make(logger: logger)
        let path = "\(directory)/\(Self.shim)"
        try Data("#!/bin/sh\nexport MARTLET_CONFIG='\(file)'\nexec containerd-shim-martlet-v2 \"$@\"\n".utf8)
            .write(to: URL(filePath: path))
        try check("chmod", path, chmod(path, 0o755))
        return PodBench.Side("martlet from a template", handler: Self.handler) { sandbox in
            let pod = PodList.all(root: configuration.paths.root).first { $0.id == sandbox }
            guard pod?.template == template else {
                throw BenchError("pod \(sandbox) has not started from the template \(template)")
            }
        }
    }
}
