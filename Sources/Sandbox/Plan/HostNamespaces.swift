import Glibc
import LinuxSystem
import OCISpec

extension Linux.Namespace {
    /// In /proc/PID/ns (namespaces(7)).
    var fileName: String {
        switch kind {
        case .network: "net"
        case .mount: "mnt"
        default: type
        }
    }

    /// Whether it is the one that this process is in, by whichever path: CRI-O and Docker have one for it.
    ///
    /// All processes of pods on the host are in some of the host's namespaces: a path that leads through one of them means the
    /// container that it stands for.
    var isHosts: Bool {
        let parts = path.split(separator: "/")
        if kind != .network, parts.first == "proc", parts.count > 1, !["1", "self", "thread-self"].contains(parts[1]) {
            return false
        }
        return NamespaceIdentity(path: path)?.isHosts(fileName) == true
    }
}

/// What a container shares with the host as its bundle has it: a namespace of the host has no meaning in a virtual machine.
extension Linux {
    /// Leaves out the namespaces that are the host's own by their paths: the specification has the runtime's, here the host's,
    /// for those that are left out.
    mutating func removeHostsNamespaces() {
        namespaces.removeAll { !$0.path.isEmpty && !$0.isGuests && $0.isHosts }
    }
}

extension PodRequest {
    /// How Kubernetes calls it; containers of a pod join that of the pod where they have none.
    private static let kubernetesNames: [Linux.Namespace.Kind: String] = [
        .network: "hostNetwork", .pid: "hostPID", .ipc: "hostIPC",
    ]

    /// The kinds of namespaces of the host that a container would have, with the names that its author knows them by. Those
    /// that are the host's by their paths are to be left out before.
    func hostNamespaces(_ spec: Spec) -> [(kind: Linux.Namespace.Kind, name: String)] {
        let own = spec.linux?.namespaces.compactMap(\.kind) ?? []
        var kinds: [Linux.Namespace.Kind] = [.network, .pid, .ipc]
        // The pod has refused it before, and has one for all.
        if isKubernetes && !isSandbox { kinds = [.network, .pid] }
        // A Kubernetes pod with the host's network has the host's name too.
        if !isKubernetes { kinds.append(.uts) }
        return kinds.filter { !own.contains($0) }.map { kind in
            (kind, isKubernetes ? Self.kubernetesNames[kind] ?? "" : "host \(kind)")
        }
    }

    /// The same as findings.
    func unsupportedHostNamespaces(_ spec: Spec, _ policy: Unsupported.Policy) -> [Unsupported] {
        hostNamespaces(spec).map { kind, name in
            let reason =
                switch (policy.hostNamespaces, isKubernetes) {
                case (.warn, _): "the container has the \(kind) namespace of its virtual machine"
                case (.refuse, true): "in a pod that is a virtual machine (runtimeClassName of another class)"
                case (.refuse, false): "the host's \(kind) namespace for a container in a virtual machine"
                }
            return Unsupported(
                field: "linux.namespaces", verdict: policy.hostNamespaces, reason: "\(name): \(reason)")
        }
    }
}
