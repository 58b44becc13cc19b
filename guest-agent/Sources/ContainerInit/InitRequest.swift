public import ContainerPlan
import GuestSystem

/// What a container init is to set up.
public enum InitRequest: Codable, Sendable {
    /// The first process of a new container, in namespaces made for it.
    case create(ContainerPlan)
    /// A further process of a running one: it enters the namespaces of the process behind the pidfd.
    case join(ProcessPlan, NamespacePlan)
    /// A process in the machine itself, in the agent's own namespaces.
    case machine(ProcessPlan)
    /// No program: the container init itself copies files, in the mount namespace of the process behind the pidfd.
    case copy(CopyPlan, NamespacePlan)

    /// Whether the container init goes on as another process once it is inside the container (`InitMessage.entered`).
    public var goesOn: Bool {
        guard case .join(_, let namespaces) = self else { return false }
        return namespaces.entered & UInt64(NamespaceFlag.pid) != 0
    }
}

/// The descriptors that a container init starts with; 0 to 2 are the process's stdin, stdout and stderr.
public enum InitDescriptors {
    public static let channel: Int32 = 3
    /// A memory file with the request as JSON.
    public static let request: Int32 = 4
    /// Of the container's first process, when joining. For a new container: from here on one of the first process of each
    /// container whose namespaces it joins, in the plan's order.
    public static let container: Int32 = 5
}
