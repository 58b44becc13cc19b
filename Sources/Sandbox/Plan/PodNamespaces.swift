import OCISpec

/// The namespaces that a pod's containers share are the guest's own, whatever names them on the host.
extension Linux {
    /// Of a container that stands for a pod: the paths of namespaces that its engine made for the pod and keeps (CRI-O:
    /// `/run/ipcns/ID`, `/run/utsns/ID`). The containers that come later name them too.
    var podNamespaces: [String] {
        namespaces.filter { $0.isShareable && !$0.path.isEmpty }.map(\.path)
    }

    /// The same, of a pod that the engine knows by a process (containerd).
    static func podNamespaces(ofProcess pid: UInt32) -> [String] {
        Namespace.sharedKinds.map { "/proc/\(pid)/ns/\($0.rawValue)" }
    }

    /// Joins in the guest each of the pod's namespaces that is named by one of `paths` on the host.
    mutating func joinPod(_ paths: [String]) {
        for index in namespaces.indices
        where namespaces[index].isShareable && paths.contains(namespaces[index].path) {
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
