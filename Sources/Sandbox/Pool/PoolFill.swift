import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
public import Logging
import OCISpec

/// The request to have so many machines of a size ready; what processes are told that make them or become one.
public struct PoolFill: Sendable, Codable {
    var configuration: Configuration
    var vcpus: Int
    var memoryMiB: Int
    var count: Int

    /// The commands of `martlet pool` that read this value from standard input.
    public static let memberCommand = "member"
    public static let refillCommand = "refill"

    /// - Parameter count: how many are ready then.
    public init(_ configuration: Configuration, vcpus: Int, memoryMiB: Int, count: Int) {
        (self.configuration, self.vcpus, self.memoryMiB, self.count) = (configuration, vcpus, memoryMiB, count)
    }

    /// Reads it from standard input.
    public static func read() throws -> PoolFill { try readStandardInput() }

    /// Has a process do so that may outlive this one, when the pod that has taken a machine has had its time to start.
    ///
    /// - Parameter cgroup: the pod's, where the process must not stay: its machines are not the pod's.
    func startInBackground(outside cgroup: HostCgroup?) throws {
        try startOwnProcess(["pool", Self.refillCommand], input: self, outside: cgroup)
    }

    /// How long a pod that has taken a machine has the host for itself.
    private static let delay = Duration.seconds(1)

    /// Makes what is missing, unless another process is doing so.
    public func runInBackground(logger: Logger) async throws {
        try await Task.sleep(for: Self.delay)
        _ = try await run(isPatient: false, logger: logger)
    }

    /// Makes what is missing, and ends what pods of this size can't use any more.
    ///
    /// - Parameter isPatient: wait while another process does so.
    /// - Returns: the servers that are ready.
    /// - Throws: why there are not so many.
    public func run(isPatient: Bool = true, logger: Logger) async throws -> [PoolMember] {
        let pool = Pool(directory: configuration.pool.directory)
        try makeDirectories(pool.directory, mode: 0o700)
        let turn = try OwnedDescriptor.open(pool.directory, O_RDONLY | O_DIRECTORY)
        if flock(turn.raw, LOCK_EX | LOCK_NB) != 0 {
            guard isPatient else { return [] }
            _ = try retrying("flock", pool.directory) { flock(turn.raw, LOCK_EX) }
        }
        let template = try await TemplateMaker(configuration, logger: logger).need(vcpus: vcpus, memoryMiB: memoryMiB)
        func isOfSize(_ member: PoolMember) -> Bool { (member.vcpus, member.memoryMiB) == (vcpus, memoryMiB) }
        pool.drain { isOfSize($0) && !($0.template == template && $0.isOfThisHost) }
        var ready = pool.members().filter(isOfSize)
        while ready.count < count {
            try await onThread("pool member") { try startMember() }
            ready = pool.members().filter(isOfSize)
        }
        return ready
    }

    /// What a server writes to its pipe when its machine is ready.
    static let readyLine = "ready\n"

    /// Starts a server, and waits until it is ready.
    private func startMember() throws {
        let input = try memory(of: self)
        let (child, output) = try ChildProcess.withPipe(
            "martlet pool",
            .init(
                executable: try Programs.own("martlet"), arguments: ["pool", Self.memberCommand],
                environment: GuestImage.guestEnvironment(),
                descriptors: [input.raw, -1, STDERR_FILENO, ChildProcess.pipe, -1, -1, -1], newSession: true,
                isReaped: false))
        guard try readText(output.raw, "pipe") == Self.readyLine else {
            throw SandboxError.failed("no machine was made ready: process \(child.pid) of the pool says why")
        }
    }
}
