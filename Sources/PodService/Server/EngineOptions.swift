import FoundationEssentials
import LinuxSystem
import Sandbox
import SwiftProtobuf
import TaskAPI

extension PodEnvironment {
    /// The configuration as the engine's options and the bundle's annotations change it for one pod.
    func configuration(
        options: Google_Protobuf_Any, annotations: [String: String]
    ) async throws -> Configuration {
        let file = try configuration.file(engineOptions: options.typeURL, options.value)
        // Read again only where something is to change.
        if file == nil, !Configuration.isChanged(by: annotations) { return configuration }
        return try await onThread("configuration") {
            try Configuration.load(file: file ?? configurationFile, annotations: annotations)
        }
    }
}

extension Configuration {
    /// The configuration file that an engine names for its runtime, where the administrator allows that (`engine.options`).
    ///
    /// - Parameters:
    ///   - type: what kind of options they are; empty: none.
    ///   - bytes: the message.
    /// - Throws: `SandboxError` for options that are not known, not allowed, or ask for what there is not.
    func file(engineOptions type: String, _ bytes: Data) throws -> String? {
        func read<M: Message>() throws -> M {
            do { return try M(serializedBytes: bytes) } catch {
                throw SandboxError.invalid("options: \(type): \(error)")
            }
        }
        switch type.split(separator: "/").last ?? "" {
        case "": return nil
        case "containerd.runc.v1.Options":
            // Written by clients that take every runtime for runc.
            let options: RuncOptionsOptions = try read()
            if options.systemdCgroup { throw SandboxError.unsupported("options: SystemdCgroup") }
            return nil
        case "runtimeoptions.v1.Options":
            let options: RuntimeOptionsOptions = try read()
            if options.configPath.isEmpty { return nil }
            guard engine.options.contains("config_path") else {
                throw SandboxError.invalid(
                    "options: ConfigPath: not among what engine.options of the configuration allows")
            }
            return options.configPath
        default: throw SandboxError.unsupported("options of type \(type)")
        }
    }
}

extension RuncOptionsCheckpointOptions {
    /// - Parameter options: of a `CheckpointTaskRequest`; empty: none.
    /// - Throws: `SandboxError` for options of another type.
    init(checkpoint options: Google_Protobuf_Any) throws {
        if options.typeURL.isEmpty {
            self.init()
            return
        }
        guard options.typeURL.split(separator: "/").last == "containerd.runc.v1.CheckpointOptions" else {
            throw SandboxError.unsupported("options of type \(options.typeURL)")
        }
        do { try self.init(serializedBytes: options.value) } catch {
            throw SandboxError.invalid("options: \(options.typeURL): \(error)")
        }
    }
}
