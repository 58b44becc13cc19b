import AgentAPI
import ContainerInit
import ContainerPlan
import GuestSystem
import LinuxSystem
import OCISpec

/// Processes in the machine itself, in no container: in the agent's own namespaces, as whoever the host says.
actor MachineProcesses {
    private enum Entry {
        case starting
        case running(ContainerProcess, Cgroup)
    }

    private let launcher: InitLauncher
    private let table: StreamTable
    /// The cgroup that has theirs.
    private let controlGroup: String
    private var processes: [String: Entry] = [:]

    init(launcher: InitLauncher, table: StreamTable, controlGroup: String) {
        (self.launcher, self.table, self.controlGroup) = (launcher, table, controlGroup)
    }

    /// Starts one.
    func exec(_ id: String, _ process: Process, _ numbers: AgentStreams) async throws(AgentFailure) -> UInt32 {
        do throws(AgentFailure) {
            guard id.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }), id.count < 100 else {
                throw AgentFailure(.invalidArgument, "not the id of a process in the machine")
            }
            guard processes[id] == nil else { throw AgentFailure(.alreadyExists, "a process of that id exists") }
        } catch {
            table.discard(numbers)
            throw error
        }
        processes[id] = .starting
        let (launcher, table, parent) = (launcher, table, controlGroup)
        do throws(AgentFailure) {
            let (started, group) = try await blocking("exec") { () throws(AgentFailure) in
                try Self.start(id, process, numbers, launcher, table, below: parent)
            }
            processes[id] = .running(started, group)
            return started.pid
        } catch {
            processes[id] = nil
            table.discard(numbers)
            throw error
        }
    }

    private static func start(
        _ id: String, _ process: Process, _ numbers: AgentStreams, _ launcher: InitLauncher, _ table: StreamTable,
        below parent: String
    ) throws(AgentFailure) -> (ContainerProcess, Cgroup) {
        var plan = try ProcessPlan(process)
        plan.keepsLineFeeds = numbers.keepsLineFeeds
        let group = try during("make its cgroup") { try Cgroup.make(id, below: parent) }
        do throws(AgentFailure) {
            let streams = try during("make its streams") {
                try ProcessStreams(numbers, terminal: plan.terminal, table: table)
            }
            let started = try launcher.launch(.machine(plan), streams: streams, group: group)
            try started.execute()
            return (started, group)
        } catch {
            try? group.remove()
            throw error
        }
    }

    func process(_ id: String) throws(AgentFailure) -> ContainerProcess {
        guard case .running(let process, _)? = processes[id] else { throw AgentFailure(.notFound, "no such process") }
        return process
    }

    /// Suspends until it has ended, and ends what it has left behind.
    func wait(for id: String) async throws(AgentFailure) -> GuestProcess.End {
        guard case .running(let process, let group)? = processes[id] else {
            throw AgentFailure(.notFound, "no such process")
        }
        let end = await process.wait()
        _ = try? await blocking("remove") { () throws(AgentFailure) in
            try during("remove its cgroup") { try group.remove() }
        }
        // Its output may still be on its way: each stream ends by itself.
        processes[id] = nil
        return end
    }
}
