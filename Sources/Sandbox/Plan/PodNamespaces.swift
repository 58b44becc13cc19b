import OCISpec

/// Whose namespace a path of the host stands for: a pod's containers share namespaces of the guest.
enum NamespaceOwner: Sendable, Equatable {
    /// All containers of the pod.
    case sandbox
    /// A container of the pod, by its id.
    case container(String)
}

extension Linux {
    /// Of a container that stands for a pod: the paths of namespaces that its engine made for the pod and keeps (CRI-O:
    /// `/run/ipcns/ID`, `/run/utsns/ID`). The containers that come later name them too.
    var podNamespaces: [String] {
        namespaces.filter { $0.isShareable && !$0.path.isEmpty }.map(\.path)
    }

    /// Joins in the guest each namespace that has an owner, by its path on the host.
    mutating func join(_ owners: [String: NamespaceOwner]) {
        for index in namespaces.indices where namespaces[index].isShareable {
            switch owners[namespaces[index].path] {
            case .sandbox: namespaces[index].joinSandbox()
            case .container(let id): namespaces[index].join(container: id)
            case nil: break
            }
        }
    }

    /// Of a container whose engine has made its pod by itself: the pod's process is in the host's namespaces, so a path that leads to
    /// one of these means the pod's.
    mutating func joinSandboxForHosts() {
        for index in namespaces.indices where namespaces[index].isShareable && !namespaces[index].path.isEmpty {
            let namespace = namespaces[index]
            // Whose the first process's are cannot be seen everywhere.
            guard !namespace.isGuests, namespace.process == 1 || namespace.isHosts else { continue }
            namespaces[index].joinSandbox()
        }
    }

    /// The container that stands for a pod is in the IPC namespace that the others share: the pod's kernel parameters, which
    /// engines give to it alone, are theirs.
    mutating func shareIPC() {
        for index in namespaces.indices where namespaces[index].kind == .ipc && namespaces[index].path.isEmpty {
            namespaces[index].joinSandbox()
        }
    }
}

extension Linux.Namespace {
    /// The process by which a path names it: `/proc/PID/ns/ipc`.
    var process: UInt32? {
        let parts = path.split(separator: "/")
        guard parts.count == 4, parts[0] == "proc", parts[2] == "ns", parts[3] == fileName else { return nil }
        return UInt32(parts[1])
    }
}

extension Pod {
    /// The container that a process on the host stands for, as its first one or an exec.
    func container(ofProcess pid: UInt32) -> String? {
        containers.values.first { container in
            container.processes.contains { $0.host.map { UInt32(bitPattern: $0.pid) } == pid }
        }?.id
    }

    /// Whose the namespaces are that a container of this pod asks for by paths.
    func owners(of namespaces: [Linux.Namespace], in pod: RunningPod) -> [String: NamespaceOwner] {
        var owners: [String: NamespaceOwner] = [:]
        for namespace in namespaces where namespace.isShareable {
            if pod.plan.namespaces.contains(namespace.path) {
                owners[namespace.path] = .sandbox
            } else if let process = namespace.process {
                owners[namespace.path] = owner(ofProcess: process)
            }
        }
        return owners
    }

    /// A process that stands for the pod stands for what the containers share.
    private func owner(ofProcess pid: UInt32) -> NamespaceOwner? {
        if let sandboxProcess, pid == UInt32(bitPattern: sandboxProcess.pid) { return .sandbox }
        guard let id = container(ofProcess: pid), let container = containers[id] else { return nil }
        return PodRequest(container.plan.spec).isSandbox ? .sandbox : .container(id)
    }
}
