import Glibc
public import Logging

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
        try startOwnProcess(["template", Self.command], input: self, outside: cgroup)
    }

    /// Reads it from standard input.
    public static func read() throws -> BackgroundTemplate { try readStandardInput() }

    /// Makes the template, unless one is being made already.
    public func make(logger: Logger) async throws {
        // Pods come first.
        setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19)
        _ = try await TemplateMaker(configuration, logger: logger)
            .make(vcpus: vcpus, memoryMiB: memoryMiB, isPatient: false)
    }
}
