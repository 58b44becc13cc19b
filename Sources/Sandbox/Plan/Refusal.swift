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
