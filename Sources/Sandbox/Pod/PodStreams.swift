import AgentContract
import LinuxSystem

/// The streams of the pod's processes: from the engine's ends to the agent's connections, which a restored machine does not keep.
extension Pod {
    /// Opens what the engine named as a process's streams, and connects each to the agent.
    func openStreams(
        of process: ContainerProcess, container: String, _ pod: RunningPod
    ) async throws -> (ProcessStreams, StreamNumbers) {
        if streamsAreDetached { throw SandboxError.wrongState("the streams of the pod's processes are detached") }
        let streams = try await openDetachedStreams(of: process, container: container)
        do {
            var (numbers, connections) = try await streams.connect { try await connectStream(pod) }
            numbers.keepsLineFeeds = process.source?.keepsLineFeeds ?? false
            streams.attach(connections)
            return (streams, numbers)
        } catch {
            streams.cancel()
            throw error
        }
    }

    /// Opens what the engine named as a process's streams, for a process in the guest whose streams are detached.
    func openDetachedStreams(of process: ContainerProcess, container: String) async throws -> ProcessStreams {
        guard let source = process.source else { throw SandboxError.wrongState("the streams are open already") }
        let (terminal, namespace) = (process.terminal, environment.namespace)
        let engine = try await onThread("streams") {
            try EngineStreams(source, terminal: terminal, of: container, namespace: namespace)
        }
        return try ProcessStreams(engine)
    }

    /// Opens a connection with a new number.
    func connectStream(_ pod: RunningPod) async throws -> (UInt64, SharedDescriptor) {
        let number = nextStream
        nextStream += 1
        return (number, try await pod.link.stream(number, deadline: pod.agent.timeout))
    }

    // MARK: Detaching

    /// Lets go of the connections of all processes' streams, without the loss of a byte, so that the machine can be paused and saved. Until
    /// `attachStreams` the processes' pipes stay open and nothing is read from them, and no process can be made.
    ///
    /// - Throws: `SandboxError.wrongState` where a process is being made, and nothing was done; or what could not be detached, by its name.
    ///   The streams are to be attached then too.
    func detachStreams(_ pod: RunningPod) async throws {
        if streamsAreDetached {
            throw SandboxError.wrongState("the streams of the pod's processes are detached already")
        }
        if let id = creations.keys.min() { throw SandboxError.wrongState("container \(id) is being created") }
        if startingProcesses > 0 { throw SandboxError.wrongState("a process is being started") }
        if copies > 0 { throw SandboxError.wrongState("files are being copied") }
        let all = processStreams
        streamsAreDetached = true
        // The host's ends first: the end of a connection would be the end of its stream otherwise.
        for process in all { try process.streams.detach() }
        try await pod.agent.detachStreams()
        for process in all {
            do { try await process.streams.detached(within: .seconds(AgentLimit.detachSeconds)) } catch {
                throw SandboxError.failed("\(Self.name(process.id, process.exec)): \(error)")
            }
        }
    }

    /// Connects the streams of all processes that are detached again, and tells the guest what it can't know.
    ///
    /// - Parameters:
    ///   - entropy: for the guest's pool; empty: it stays as it is.
    ///   - hostname: of the pod's containers; empty: it stays as it is.
    /// - Throws: what the agent refused, by its name. The streams are still detached then.
    func attachStreams(_ pod: RunningPod, entropy: [UInt8] = [], hostname: String = "") async throws {
        var requests: [GuestAgent.AttachedProcess] = []
        var attached: [(streams: ProcessStreams, connections: StreamConnections)] = []
        for (id, exec, streams, isStopped) in processStreams where streams.isDetached {
            // The agent forgets an exec that has ended when its output was taken.
            let isKnown = !isStopped || streams.isAttachable
            let (numbers, connections) = try await streams.connect { try await connectStream(pod) }
            attached.append((streams, connections))
            if isKnown {
                let name = exec.isEmpty ? hostname : ""
                requests.append(.init(container: id, exec: exec, streams: numbers, hostname: name))
            }
        }
        try await pod.agent.resume(entropy: entropy, processes: requests)
        for (streams, connections) in attached { streams.attach(connections) }
        streamsAreDetached = false
    }

    /// Of all processes that have or had some, in the order of their names.
    private var processStreams: [(id: String, exec: String, streams: ProcessStreams, isStopped: Bool)] {
        containers.values.sorted { $0.id < $1.id }.flatMap { container in
            let execs = container.execs.sorted { $0.key < $1.key }
            return ([("", container.first)] + execs.map { ($0.key, $0.value) }).compactMap { exec, process in
                process.streams.map { (container.id, exec, $0, process.phase.isStopped) }
            }
        }
    }
}
