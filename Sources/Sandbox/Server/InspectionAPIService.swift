import AgentAPI
import TTRPC
import TaskAPI

/// What `martlet ps` and `martlet logs` ask.
struct InspectionAPIService: InspectionService {
    let pod: PodTaskService

    init(_ pod: PodTaskService) { self.pod = pod }

    func processes(_ request: PodProcessesRequest, context: TTRPCContext) async throws -> PodProcessesResponse {
        try await pod.withPod { pod in
            let containers = try await pod.snapshot()
            return .with { $0.containers = containers }
        }
    }

    func console(_ request: PodConsoleRequest, context: TTRPCContext) async throws -> PodConsoleResponse {
        let console = try await pod.console()
        let (first, lines) = console.lines(from: Int(clamping: request.first))
        return .with {
            $0.first = UInt64(first)
            $0.lines = lines
        }
    }
}

extension Pod {
    /// Its containers by their ids, with what runs in them.
    func snapshot() async throws -> [PodContainer] {
        var result: [PodContainer] = []
        for id in containers.keys.sorted() {
            var entry = PodContainer()
            entry.id = id
            entry.status = status(of: id)
            if entry.status != "stopped" { entry.processes = try await processes(id).map(PodProcess.init) }
            result.append(entry)
        }
        return result
    }

    /// As `PodContainer.status` has it; one that was removed meanwhile has stopped.
    private func status(of id: String) -> String {
        guard let container = containers[id] else { return "stopped" }
        return container.isPaused ? "paused" : container.first.phase.name
    }
}

extension PodProcess {
    init(_ process: AgentListProcessesResponse.Process) {
        self.init()
        pid = process.pid
        userID = process.userID
        command = process.command
    }
}
