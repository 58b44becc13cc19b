// Generated from agent.proto by scripts/protoc-gen-ttrpc-swift (make protos). Do not edit.

public import TTRPC

/// What a server of `martlet.agent.v1.Agent` implements. A method that throws a `TTRPCError` answers its code;
/// see `TTRPCError.init(answering:)` for other errors.
public protocol AgentService: Sendable {
    /// The first call: host and agent tell each other the version of this API that they speak, and refuse one that differs.
    /// Names the sandbox and sets what all its containers share. Once per VM.
    func createSandbox(_ request: AgentCreateSandboxRequest, context: TTRPCContext) async throws -> AgentCreateSandboxResponse
    /// Ends every process and powers the VM off; the reply may not arrive.
    func destroySandbox(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty
    /// Makes a volume in the guest's memory, which lasts as long as the sandbox. One of that name is left as it is.
    func makeVolume(_ request: AgentMakeVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Writes into a volume. One call at a time for each volume.
    func writeVolume(_ request: AgentWriteVolumeRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Sets a container up to the point before its program is executed.
    func createContainer(_ request: AgentCreateContainerRequest, context: TTRPCContext) async throws -> AgentCreateContainerResponse
    /// Lets go of a disk that no container uses any more, so that the machine can take it away. Waits for file systems on it to be
    /// unmounted; fails, FailedPrecondition, where one stays mounted: the disk must stay then.
    func releaseDisk(_ request: AgentReleaseDiskRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Executes the program of a container that was created.
    func startContainer(_ request: AgentProcessRequest, context: TTRPCContext) async throws -> AgentStartContainerResponse
    /// Takes an ended container's mounts and state away.
    func removeContainer(_ request: AgentRemoveContainerRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Mounts a share below one that a container has (Storage.propagates), and takes it away again.
    func mountShare(_ request: AgentMountShareRequest, context: TTRPCContext) async throws -> AgentEmpty
    func unmountShare(_ request: AgentUnmountShareRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Sets a further process in a running container up and starts it; without a container's id, one in the machine itself, which
    /// SignalProcess, WaitProcess and ResizePty know without a container's id too.
    func execProcess(_ request: AgentExecProcessRequest, context: TTRPCContext) async throws -> AgentStartContainerResponse
    func signalProcess(_ request: AgentSignalProcessRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Answers when the process has ended. Its output may still be on its way: each stream ends by itself.
    func waitProcess(_ request: AgentProcessRequest, context: TTRPCContext) async throws -> AgentWaitProcessResponse
    func resizePty(_ request: AgentResizePtyRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Packs files of a container into a tar archive, or unpacks one there, as the container sees its file system. Answers when that is done;
    /// the archive's end may still be on its way. NotFound: nothing is at the path.
    func copyFiles(_ request: AgentCopyFilesRequest, context: TTRPCContext) async throws -> AgentEmpty
    func listProcesses(_ request: AgentListProcessesRequest, context: TTRPCContext) async throws -> AgentListProcessesResponse
    /// Freezes every process of a container, and lets them run again.
    func pauseContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty
    func resumeContainer(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Changes a container's limits; what a request leaves out stays as it is.
    func updateContainer(_ request: AgentUpdateContainerRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// What a container's cgroup has counted.
    func containerStats(_ request: AgentContainerRequest, context: TTRPCContext) async throws -> AgentContainerStatsResponse
    /// Answers when the OOM killer has killed more of a container's processes than the host knows of.
    func waitOOM(_ request: AgentWaitOOMRequest, context: TTRPCContext) async throws -> AgentWaitOOMResponse
    /// Makes the sandbox's network what the request says: interfaces are found by their hardware address; addresses, routes
    /// and neighbours that are not named are taken away.
    func updateNetwork(_ request: AgentUpdateNetworkRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Makes the agent listen for the resolvers of the host that the request names, and for no others.
    func updateResolvers(_ request: AgentUpdateResolversRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Lets go of the streams of all processes, so that the guest can be paused and restored: connections do not survive that. Each output
    /// ends its connection behind all that was read from the process, and nothing more is read. Each input ends the sending side of its
    /// connection; the host answers with the end of its own, and what came until then is kept for the process. Answers when all of that is
    /// done. After ten seconds it fails, DeadlineExceeded, with the streams that are left, which go on to do it.
    func detachStreams(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentEmpty
    /// Gives a guest that was restored, or goes on, what it can't know, and attaches streams again that were detached.
    func resumeSandbox(_ request: AgentResumeSandboxRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Facts of the guest; also the host's heartbeat.
    func guestDetails(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestDetailsResponse
    /// What the guest as a whole uses. The host does without where an agent does not have this call.
    func guestStats(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentGuestStatsResponse
    /// Drops page cache, what was used longest ago first. The host does without where an agent does not have this call.
    func reclaimMemory(_ request: AgentReclaimMemoryRequest, context: TTRPCContext) async throws -> AgentReclaimMemoryResponse
    /// Runs on so many CPUs, which the machine has got, and on no others. DeadlineExceeded where they do not come within ten seconds.
    func useProcessors(_ request: AgentUseProcessorsRequest, context: TTRPCContext) async throws -> AgentEmpty
    /// Has the file systems on the machine's disks stand still until ThawDisks, or for a time. The host does without in an older agent.
    func freezeDisks(_ request: AgentFreezeDisksRequest, context: TTRPCContext) async throws -> AgentFreezeDisksResponse
    func thawDisks(_ request: AgentEmpty, context: TTRPCContext) async throws -> AgentThawDisksResponse
}

extension TTRPCServiceDescription {
    /// `martlet.agent.v1.Agent`, answered by `service`; for `TTRPCServer`.
    public static func agent(_ service: some AgentService) -> TTRPCServiceDescription {
        TTRPCServiceDescription(
            "martlet.agent.v1.Agent",
            methods: [
                "CreateSandbox": .unary { try await service.createSandbox($0, context: $1) },
                "DestroySandbox": .unary { try await service.destroySandbox($0, context: $1) },
                "MakeVolume": .unary { try await service.makeVolume($0, context: $1) },
                "WriteVolume": .unary { try await service.writeVolume($0, context: $1) },
                "CreateContainer": .unary { try await service.createContainer($0, context: $1) },
                "ReleaseDisk": .unary { try await service.releaseDisk($0, context: $1) },
                "StartContainer": .unary { try await service.startContainer($0, context: $1) },
                "RemoveContainer": .unary { try await service.removeContainer($0, context: $1) },
                "MountShare": .unary { try await service.mountShare($0, context: $1) },
                "UnmountShare": .unary { try await service.unmountShare($0, context: $1) },
                "ExecProcess": .unary { try await service.execProcess($0, context: $1) },
                "SignalProcess": .unary { try await service.signalProcess($0, context: $1) },
                "WaitProcess": .unary { try await service.waitProcess($0, context: $1) },
                "ResizePty": .unary { try await service.resizePty($0, context: $1) },
                "CopyFiles": .unary { try await service.copyFiles($0, context: $1) },
                "ListProcesses": .unary { try await service.listProcesses($0, context: $1) },
                "PauseContainer": .unary { try await service.pauseContainer($0, context: $1) },
                "ResumeContainer": .unary { try await service.resumeContainer($0, context: $1) },
                "UpdateContainer": .unary { try await service.updateContainer($0, context: $1) },
                "ContainerStats": .unary { try await service.containerStats($0, context: $1) },
                "WaitOOM": .unary { try await service.waitOOM($0, context: $1) },
                "UpdateNetwork": .unary { try await service.updateNetwork($0, context: $1) },
                "UpdateResolvers": .unary { try await service.updateResolvers($0, context: $1) },
                "DetachStreams": .unary { try await service.detachStreams($0, context: $1) },
                "ResumeSandbox": .unary { try await service.resumeSandbox($0, context: $1) },
                "GuestDetails": .unary { try await service.guestDetails($0, context: $1) },
                "GuestStats": .unary { try await service.guestStats($0, context: $1) },
                "ReclaimMemory": .unary { try await service.reclaimMemory($0, context: $1) },
                "UseProcessors": .unary { try await service.useProcessors($0, context: $1) },
                "FreezeDisks": .unary { try await service.freezeDisks($0, context: $1) },
                "ThawDisks": .unary { try await service.thawDisks($0, context: $1) },
            ])
    }
}

/// Calls `martlet.agent.v1.Agent`. Every call has a deadline, `timeout` from now.
public struct AgentServiceClient: Sendable {
    /// The connection of the calls.
    public let client: TTRPCClient

    public init(_ client: TTRPCClient) {
        self.client = client
    }

    /// The first call: host and agent tell each other the version of this API that they speak, and refuse one that differs.
    /// Names the sandbox and sets what all its containers share. Once per VM.
    public func createSandbox(
        _ request: AgentCreateSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentCreateSandboxResponse {
        try await client.call(Self.service, "CreateSandbox", request, metadata: metadata, timeout: timeout)
    }

    /// Ends every process and powers the VM off; the reply may not arrive.
    public func destroySandbox(
        _ request: AgentEmpty, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "DestroySandbox", request, metadata: metadata, timeout: timeout)
    }

    /// Makes a volume in the guest's memory, which lasts as long as the sandbox. One of that name is left as it is.
    public func makeVolume(
        _ request: AgentMakeVolumeRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "MakeVolume", request, metadata: metadata, timeout: timeout)
    }

    /// Writes into a volume. One call at a time for each volume.
    public func writeVolume(
        _ request: AgentWriteVolumeRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "WriteVolume", request, metadata: metadata, timeout: timeout)
    }

    /// Sets a container up to the point before its program is executed.
    public func createContainer(
        _ request: AgentCreateContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentCreateContainerResponse {
        try await client.call(Self.service, "CreateContainer", request, metadata: metadata, timeout: timeout)
    }

    /// Lets go of a disk that no container uses any more, so that the machine can take it away. Waits for file systems on it to be
    /// unmounted; fails, FailedPrecondition, where one stays mounted: the disk must stay then.
    public func releaseDisk(
        _ request: AgentReleaseDiskRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "ReleaseDisk", request, metadata: metadata, timeout: timeout)
    }

    /// Executes the program of a container that was created.
    public func startContainer(
        _ request: AgentProcessRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentStartContainerResponse {
        try await client.call(Self.service, "StartContainer", request, metadata: metadata, timeout: timeout)
    }

    /// Takes an ended container's mounts and state away.
    public func removeContainer(
        _ request: AgentRemoveContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "RemoveContainer", request, metadata: metadata, timeout: timeout)
    }

    /// Mounts a share below one that a container has (Storage.propagates), and takes it away again.
    public func mountShare(
        _ request: AgentMountShareRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "MountShare", request, metadata: metadata, timeout: timeout)
    }

    public func unmountShare(
        _ request: AgentUnmountShareRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "UnmountShare", request, metadata: metadata, timeout: timeout)
    }

    /// Sets a further process in a running container up and starts it; without a container's id, one in the machine itself, which
    /// SignalProcess, WaitProcess and ResizePty know without a container's id too.
    public func execProcess(
        _ request: AgentExecProcessRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentStartContainerResponse {
        try await client.call(Self.service, "ExecProcess", request, metadata: metadata, timeout: timeout)
    }

    public func signalProcess(
        _ request: AgentSignalProcessRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "SignalProcess", request, metadata: metadata, timeout: timeout)
    }

    /// Answers when the process has ended. Its output may still be on its way: each stream ends by itself.
    public func waitProcess(
        _ request: AgentProcessRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentWaitProcessResponse {
        try await client.call(Self.service, "WaitProcess", request, metadata: metadata, timeout: timeout)
    }

    public func resizePty(
        _ request: AgentResizePtyRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "ResizePty", request, metadata: metadata, timeout: timeout)
    }

    /// Packs files of a container into a tar archive, or unpacks one there, as the container sees its file system. Answers when that is done;
    /// the archive's end may still be on its way. NotFound: nothing is at the path.
    public func copyFiles(
        _ request: AgentCopyFilesRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "CopyFiles", request, metadata: metadata, timeout: timeout)
    }

    public func listProcesses(
        _ request: AgentListProcessesRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentListProcessesResponse {
        try await client.call(Self.service, "ListProcesses", request, metadata: metadata, timeout: timeout)
    }

    /// Freezes every process of a container, and lets them run again.
    public func pauseContainer(
        _ request: AgentContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "PauseContainer", request, metadata: metadata, timeout: timeout)
    }

    public func resumeContainer(
        _ request: AgentContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "ResumeContainer", request, metadata: metadata, timeout: timeout)
    }

    /// Changes a container's limits; what a request leaves out stays as it is.
    public func updateContainer(
        _ request: AgentUpdateContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "UpdateContainer", request, metadata: metadata, timeout: timeout)
    }

    /// What a container's cgroup has counted.
    public func containerStats(
        _ request: AgentContainerRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentContainerStatsResponse {
        try await client.call(Self.service, "ContainerStats", request, metadata: metadata, timeout: timeout)
    }

    /// Answers when the OOM killer has killed more of a container's processes than the host knows of.
    public func waitOOM(
        _ request: AgentWaitOOMRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentWaitOOMResponse {
        try await client.call(Self.service, "WaitOOM", request, metadata: metadata, timeout: timeout)
    }

    /// Makes the sandbox's network what the request says: interfaces are found by their hardware address; addresses, routes
    /// and neighbours that are not named are taken away.
    public func updateNetwork(
        _ request: AgentUpdateNetworkRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "UpdateNetwork", request, metadata: metadata, timeout: timeout)
    }

    /// Makes the agent listen for the resolvers of the host that the request names, and for no others.
    public func updateResolvers(
        _ request: AgentUpdateResolversRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "UpdateResolvers", request, metadata: metadata, timeout: timeout)
    }

    /// Lets go of the streams of all processes, so that the guest can be paused and restored: connections do not survive that. Each output
    /// ends its connection behind all that was read from the process, and nothing more is read. Each input ends the sending side of its
    /// connection; the host answers with the end of its own, and what came until then is kept for the process. Answers when all of that is
    /// done. After ten seconds it fails, DeadlineExceeded, with the streams that are left, which go on to do it.
    public func detachStreams(
        _ request: AgentEmpty, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "DetachStreams", request, metadata: metadata, timeout: timeout)
    }

    /// Gives a guest that was restored, or goes on, what it can't know, and attaches streams again that were detached.
    public func resumeSandbox(
        _ request: AgentResumeSandboxRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "ResumeSandbox", request, metadata: metadata, timeout: timeout)
    }

    /// Facts of the guest; also the host's heartbeat.
    public func guestDetails(
        _ request: AgentEmpty, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentGuestDetailsResponse {
        try await client.call(Self.service, "GuestDetails", request, metadata: metadata, timeout: timeout)
    }

    /// What the guest as a whole uses. The host does without where an agent does not have this call.
    public func guestStats(
        _ request: AgentEmpty, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentGuestStatsResponse {
        try await client.call(Self.service, "GuestStats", request, metadata: metadata, timeout: timeout)
    }

    /// Drops page cache, what was used longest ago first. The host does without where an agent does not have this call.
    public func reclaimMemory(
        _ request: AgentReclaimMemoryRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentReclaimMemoryResponse {
        try await client.call(Self.service, "ReclaimMemory", request, metadata: metadata, timeout: timeout)
    }

    /// Runs on so many CPUs, which the machine has got, and on no others. DeadlineExceeded where they do not come within ten seconds.
    public func useProcessors(
        _ request: AgentUseProcessorsRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentEmpty {
        try await client.call(Self.service, "UseProcessors", request, metadata: metadata, timeout: timeout)
    }

    /// Has the file systems on the machine's disks stand still until ThawDisks, or for a time. The host does without in an older agent.
    public func freezeDisks(
        _ request: AgentFreezeDisksRequest, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentFreezeDisksResponse {
        try await client.call(Self.service, "FreezeDisks", request, metadata: metadata, timeout: timeout)
    }

    public func thawDisks(
        _ request: AgentEmpty, metadata: TTRPCMetadata = [:], timeout: Duration = TTRPCClient.defaultTimeout
    ) async throws(TTRPCError) -> AgentThawDisksResponse {
        try await client.call(Self.service, "ThawDisks", request, metadata: metadata, timeout: timeout)
    }

    private static let service = "martlet.agent.v1.Agent"
}
