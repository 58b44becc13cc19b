import Glibc
import LinuxSystem
import OCISpec

extension Unsupported {
    /// Throws for the first of `findings` that may not be run without.
    static func refuse(_ findings: [Unsupported], in file: String = "") throws {
        if let refused = findings.first(where: { $0.verdict == .refuse }) {
            throw SandboxError.unsupported("\(file)\(refused)")
        }
    }
}

extension SandboxPlan.Network {
    /// Refuses a path that is no network namespace, and the host's own: what is connected to it would be taken from the host.
    ///
    /// - Throws: `SandboxError` that names the path.
    func check() throws {
        guard case .existing(let path) = self else { return }
        let field = "linux.namespaces: network: \(path)"
        guard access(path, F_OK) == 0 else {
            throw SandboxError.invalid("\(field): \(SystemError.last("access", path))")
        }
        guard NetworkNamespace.isOne(at: path) else { throw SandboxError.invalid("\(field): not a network namespace") }
        if Linux.Namespace(.network, path: path).isHosts {
            throw SandboxError.unsupported("\(field): the host's own")
        }
    }
}

extension Pod {
    /// Refuses a Kubernetes container that asks for the processes of one other container (`kubectl debug --target`).
    ///
    /// An engine names them by that container's process, which is the same for all containers of the pod. A pod whose
    /// containers share their processes has none with processes of its own.
    func refuseOthersProcesses(_ plan: SandboxPlan.Container) throws {
        guard plan.spec.linux?.namespaces.contains(where: { $0.kind == .pid && $0.isSandboxes }) == true else { return }
        let others = containers.values.map(\.plan.spec).filter {
            let request = PodRequest($0)
            return request.isKubernetes && !request.isSandbox
        }
        if others.contains(where: { $0.linux?.namespaces.contains { $0.kind == .pid && $0.path.isEmpty } == true }) {
            throw SandboxError.unsupported(
                "linux.namespaces: the processes of another container of the pod (kubectl debug --target): all containers of "
                    + "a pod share theirs (shareProcessNamespace), or none")
        }
    }
}
