import Archive
import CAgent
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// The work of a container init that copies files: it packs a path of a container to its standard output, or unpacks its standard input.
///
/// It is in the container's mount namespace, and user namespace if the container has one, so it sees every mount as the container does, and
/// the kernel resolves every path inside of the container's root. It has no program of the container's, and no process of a pid
/// namespace of the container's own sees it.
struct FileCopy {
    let plan: CopyPlan

    /// Copies, and ends the process.
    func run(in namespaces: NamespacePlan, _ channel: InitChannel) throws(AgentFailure) -> Never {
        // A reader that is gone is an error to report.
        signal(SIGPIPE, SIG_IGN)
        try enter(namespaces)
        try during("report to the agent") { try channel.send(.ready) }
        // The agent is gone, or has given the process up.
        guard case .go? = try? channel.receive()?.message else { _exit(1) }
        try copy()
        try during("report to the agent") { try channel.send(.done) }
        _exit(0)
    }

    private func enter(_ namespaces: NamespacePlan) throws(AgentFailure) {
        let hasUsers = namespaces.owns(NamespaceFlag.user)
        try during("enter the container") {
            try check(
                "setns", "",
                martlet_agent_setns(
                    InitDescriptors.container, NamespaceFlag.mount | (hasUsers ? NamespaceFlag.user : 0)))
        }
        close(InitDescriptors.container)
        if hasUsers {
            try during("become the container's root") { try check("setresuid", "0", martlet_agent_become_root()) }
        }
    }

    private func copy() throws(AgentFailure) {
        do {
            let root = try RootDirectory("/")
            switch plan.direction {
            case .pack(let followsLink, let isShallow):
                let source = try CopySource(root: root, path: plan.path, followsLink: followsLink)
                var packer = Packer(to: Self.standard(STDOUT_FILENO))
                try packer.pack(source, isShallow: isShallow)
            case .unpack(let keepsOwners, let rule):
                let reader = TarReader(Self.standard(STDIN_FILENO))
                let first = try reader.next()
                let destination = try CopyDestination(
                    root: root, path: plan.path, CopyDestination.Rule(rule), first: first)
                var unpacker = Unpacker(into: destination, .container(keepsOwners: keepsOwners))
                try unpacker.unpack(reader, first: first)
            }
        } catch {
            throw AgentFailure(copying: error)
        }
    }

    private static func standard(_ number: Int32) -> SharedDescriptor {
        SharedDescriptor(OwnedDescriptor(owning: number))
    }
}

extension CopyDestination.Rule {
    fileprivate init(_ rule: CopyPlan.Rule) {
        switch rule {
        case .place: self = .place
        case .directory: self = .directory(isMade: false)
        case .madeDirectory: self = .directory(isMade: true)
        }
    }
}

extension AgentFailure {
    /// What went wrong with an archive; anything else as usual.
    fileprivate init(copying error: any Error) {
        guard let error = error as? ArchiveError else {
            self.init(error)
            return
        }
        let kind: Kind =
            switch error {
            case .notFound: .notFound
            case .invalid, .malformed: .invalidArgument
            case .unsupported: .unimplemented
            }
        self.init(kind, error.description)
    }
}
