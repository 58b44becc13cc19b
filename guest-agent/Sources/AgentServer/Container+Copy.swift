import AgentAPI
import ContainerInit
import ContainerPlan
import GuestSystem

extension Container {
    /// Packs files of the container, or unpacks some there. Suspends until that is done.
    ///
    /// The process that does it is in the container's cgroup: what it takes counts there, and it ends with the container.
    func copy(_ request: AgentCopyFilesRequest) async throws(AgentFailure) {
        let direction = try CopyPlan.Direction(request)
        guard request.path.utf8.first == UInt8(ascii: "/"), !request.path.utf8.contains(0) else {
            throw AgentFailure(.invalidArgument, "not an absolute path")
        }
        let first = try beginCopy()
        defer { endCopy() }
        let plan = CopyPlan(
            path: request.path, direction: direction, oomScoreAdjustment: self.plan.process.oomScoreAdjustment)
        let (launcher, table, group, namespaces) = (launcher, table, group, self.plan.namespaces)
        let numbers = AgentStreams.with {
            if request.isPack { $0.stdout = request.stream } else { $0.stdin = request.stream }
        }
        try await blocking("copy") { () throws(AgentFailure) in
            let streams = try during("make its streams") {
                try ProcessStreams(numbers, terminal: false, table: table)
            }
            try launcher.launch(
                .copy(plan, namespaces), streams: streams, group: group, container: first.process
            ).work()
        }
    }
}

extension AgentCopyFilesRequest {
    var isPack: Bool { if case .pack? = direction { true } else { false } }
}

extension CopyPlan.Direction {
    fileprivate init(_ request: AgentCopyFilesRequest) throws(AgentFailure) {
        switch request.direction {
        case .pack(let pack): self = .pack(followsLink: pack.followsLink, isShallow: pack.isShallow)
        case .unpack(let unpack):
            let rule: CopyPlan.Rule? =
                switch unpack.rule {
                case .place: .place
                case .directory: .directory
                case .madeDirectory: .madeDirectory
                case .UNRECOGNIZED: nil
                }
            guard let rule else { throw AgentFailure(.invalidArgument, "rule: \(unpack.rule.rawValue)") }
            self = .unpack(keepsOwners: unpack.keepsOwners, rule)
        case nil: throw AgentFailure(.invalidArgument, "neither pack nor unpack")
        }
    }
}
