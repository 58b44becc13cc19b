import Sandbox
import TTRPC
import TaskAPI

/// What `martlet ps` and `martlet logs` ask.
struct InspectionAPIService: InspectionService {
    let pod: Pod

    init(_ pod: Pod) { self.pod = pod }

    func processes(_ request: PodProcessesRequest, context: TTRPCContext) async throws -> PodProcessesResponse {
        try await answering {
            let containers = try await pod.snapshot()
            return .with { $0.containers = containers.map(PodContainer.init) }
        }
    }

    func console(_ request: PodConsoleRequest, context: TTRPCContext) async throws -> PodConsoleResponse {
        try await answering {
            let (first, lines) = try await pod.console().lines(from: Int(clamping: request.first))
            return .with {
                $0.first = UInt64(first)
                $0.lines = lines
            }
        }
    }
}

extension PodContainer {
    fileprivate init(_ container: ContainerSnapshot) {
        self.init()
        id = container.id
        status = container.state
        processes = container.processes.map { process in
            .with {
                $0.pid = process.pid
                $0.userID = process.userID
                $0.command = process.command
            }
        }
    }
}
