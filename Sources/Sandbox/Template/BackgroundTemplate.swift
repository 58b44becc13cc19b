import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
public import Logging
import OCISpec

/// A template that a pod's server has another process make, which may outlive the pod.
public struct BackgroundTemplate: Sendable, Codable {
    var configuration: Configuration
    var vcpus: Int
    var memoryMiB: Int

    /// The command of `martlet template` that reads this value from its standard input.
    public static let command = "make"

    /// Starts the process.
    ///
    /// - Parameter cgroup: the pod's, where the process must not stay: its machine is not the pod's.
    func start(outside cgroup: HostCgroup?) throws {
        let input = try OwnedDescriptor.memory("template", size: 0)
        try writeAll(JSON.encode(self), to: input.raw, "template")
        let process = try ChildProcess(
            "martlet template",
            .init(
                executable: try Programs.own("martlet"), arguments: ["template", Self.command],
                descriptors: [input.raw, -1, -1], newSession: true, isReaped: false))
        try cgroup?.expel(process.pid)
    }

    /// Reads it from standard input.
    public static func read() throws -> BackgroundTemplate {
        let text = try readText(STDIN_FILENO, "standard input")
        return try JSON.decode(BackgroundTemplate.self, from: Array(text.utf8), file: "standard input")
    }

    /// Makes the template, unless one is being made already.
    public func make(logger: Logger) async throws {
        // Pods come first.
        setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19)
        _ = try await TemplateMaker(configuration, logger: logger)
            .make(vcpus: vcpus, memoryMiB: memoryMiB, isPatient: false)
    }
}
