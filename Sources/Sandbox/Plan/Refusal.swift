import OCISpec

extension Unsupported {
    /// Throws for the first of `findings` that may not be run without.
    static func refuse(_ findings: [Unsupported], in file: String = "") throws {
        if let refused = findings.first(where: { $0.verdict == .refuse }) {
            throw SandboxError.unsupported("\(file)\(refused)")
        }
    }
}

extension PodRequest {
    /// Refuses a Kubernetes pod that asks for what only the host has.
    ///
    /// - Throws: `SandboxError.unsupported`, with the name that the pod's author knows it by.
    func refuseWhatIsTheHosts(_ spec: Spec) throws {
        guard isKubernetes else { return }
        for (index, device) in (spec.linux?.devices ?? []).enumerated() where !device.isFixed {
            throw SandboxError.unsupported(
                "linux.devices[\(index)]: \(device.path): a device of the host in a pod that is a virtual machine (privileged "
                    + "pods have all of them, without privileged_without_host_devices in the engine's configuration)")
        }
        guard isSandbox else { return }
        let kinds = Set(spec.linux?.namespaces.compactMap(\.kind) ?? [])
        for (kind, name) in [(Linux.Namespace.Kind.network, "hostNetwork"), (.pid, "hostPID"), (.ipc, "hostIPC")]
        where !kinds.contains(kind) {
            throw SandboxError.unsupported(
                "\(name) in a pod that is a virtual machine (runtimeClassName of another class)")
        }
    }
}
