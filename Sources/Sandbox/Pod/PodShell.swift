import AgentAPI
import AgentContract
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// A program for the machine itself, which `martlet pod shell` brings along: the guest's root image has none.
package struct MachineTool: Sendable {
    /// Absolute path on the host of a statically linked program.
    package var path: String
    /// Further names that it gets in the guest.
    package var names: [String]

    package init(path: String, names: [String]) { (self.path, self.names) = (path, names) }

    /// The largest one that is sent, bytes.
    static let limit = 64 << 20

    /// What it is called.
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// Reads it, as entries of a volume.
    ///
    /// - Throws: `SandboxError.invalid` for what is no program.
    func entries() throws -> [VolumeEntry] {
        let file = try OwnedDescriptor.open(path, O_RDONLY)
        var facts = stat()
        try check("fstat", path, fstat(file.raw, &facts))
        guard facts.st_mode & S_IFMT == S_IFREG, (1...Self.limit).contains(Int(facts.st_size)) else {
            throw SandboxError.invalid("\(path): not a file of at most \(Self.limit >> 20) MiB")
        }
        (facts.st_mode, facts.st_uid, facts.st_gid) = (S_IFREG | 0o755, 0, 0)
        var program = VolumeEntry(name, facts)
        program.data = [UInt8](repeating: 0, count: Int(facts.st_size))
        let count = try program.data.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, path) }
        guard count == program.data.count else { throw SandboxError.failed("\(path): shorter than it was") }
        facts.st_mode = S_IFLNK | 0o777
        return [program]
            + names.filter { $0 != name && !$0.contains("/") && !$0.isEmpty }.map {
                var link = VolumeEntry($0, facts)
                link.data = Array(name.utf8)
                return link
            }
    }
}

/// Processes in the machine itself, in no container: `martlet pod shell`.
extension Pod {
    /// Starts one. It is as an exec is: the process on the host that came with its streams stands for it.
    ///
    /// - Parameter tool: is sent before, unless the machine has it already.
    /// - Throws: `SandboxError.invalid` where the pod's configuration does not allow it.
    package func startInMachine(
        _ id: String, _ program: Process, _ tool: MachineTool, streams source: HandedProcess
    ) async throws {
        try await withRunning { pod in
            let host = source.process
            do {
                guard pod.configuration.vm.debugConsole else {
                    throw SandboxError.invalid(
                        "a shell in the machine of pod \(environment.id): vm.debug_console of its configuration is false"
                    )
                }
                let (namespace, user) = (pod.network.namespace, pod.user.id)
                try await onThread("machine process") { try host.enter(namespace, user: user) }
                try await pod.rest.begin()
                do { try await start(id, program, tool, source, pod) } catch {
                    await pod.rest.finish()
                    throw error
                }
            } catch {
                host.end(.exited(255))
                throw error
            }
        }
    }

    private func start(
        _ id: String, _ program: Process, _ tool: MachineTool, _ source: HandedProcess, _ pod: RunningPod
    ) async throws {
        try await provide(tool, pod)
        var source = source
        source.keepsLineFeeds = true
        var process = try ContainerProcess(
            terminal: program.terminal, source: .handed(source), host: source.process, process: program)
        let (streams, numbers) = try await openStreams(of: process, container: "", pod)
        (process.streams, process.source) = (streams, nil)
        do { try await pod.agent.exec("", exec: id, program, streams: numbers) } catch {
            streams.cancel()
            throw error
        }
        logger.info("process \(id) of the machine: \(printable(program.args.joined(separator: " "))) is started")
        let started = process
        Task { await followMachineProcess(id, started, source.process, pod) }
        try watchMachineProcess(id, source.process, pod)
    }

    /// Sends a tool to the guest, once.
    private func provide(_ tool: MachineTool, _ pod: RunningPod) async throws {
        if let known = machineTools[tool.name] {
            if known == tool.path { return }
            throw SandboxError.invalid("\(tool.path): the machine has \(known) under this name already")
        }
        var requests = VolumeRequests(GuestPath.toolsVolume)
        requests.add(try await onThread("tool") { try tool.entries() })
        let limit = pod.agent.timeout
        let volume = AgentMakeVolumeRequest.with {
            $0.name = GuestPath.toolsVolume
            $0.mode = 0o755
        }
        _ = try await pod.agent.client.makeVolume(volume, timeout: limit)
        try await pod.agent.client.write(requests.requests, limit: limit)
        machineTools[tool.name] = tool.path
    }

    private func followMachineProcess(
        _ id: String, _ process: ContainerProcess, _ host: HostProcess, _ pod: RunningPod
    ) async {
        var record = ExitRecord(status: 255, at: wallClockNanoseconds())
        do {
            record = try await pod.agent.waitForExit("", exec: id).record
            await process.streams?.finish(within: ProcessStreams.exitTimeout)
        } catch { logger.debug("process \(id) of the machine: \(error)") }
        process.streams?.cancel()
        process.exit.settle(record)
        host.end(record.end)
        await pod.rest.finish()
    }

    /// Passes on what happens to the process on the host.
    private func watchMachineProcess(_ id: String, _ host: HostProcess, _ pod: RunningPod) throws {
        let events = try host.events()
        let agent = pod.agent
        Task {
            for await event in events {
                switch event {
                case .signal(let number): try? await agent.signal("", exec: id, UInt32(number), all: false)
                case .resized(let width, let height):
                    try? await agent.resize("", exec: id, width: width, height: height)
                // It was killed, or has ended as the process in the guest has, which takes no signal any more.
                case .ended: try? await agent.signal("", exec: id, UInt32(SIGKILL), all: false)
                }
            }
        }
    }

    /// Gives the terminal of a process of the machine another size.
    package func resizeInMachine(_ id: String, width: UInt32, height: UInt32) async throws {
        try await withRunning { try await $0.agent.resize("", exec: id, width: width, height: height) }
    }
}
