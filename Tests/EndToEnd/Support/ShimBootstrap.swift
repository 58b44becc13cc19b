import Glibc
import LinuxSystem
import OCISpec
internal import SwiftProtobuf
internal import TaskAPI

/// How containerd starts a shim and is told where that listens (core/runtime/v2/README.md of containerd).
enum ShimBootstrap: String, CaseIterable {
    /// containerd 1: arguments and variables; the answer is an address.
    case address
    /// containerd 2.0 to 2.2: the same; the answer is JSON.
    case json
    /// containerd 2.3: a `BootstrapParams` on standard input too; the answer is a `BootstrapResult`.
    case message

    /// Runs the shim's `start` in a bundle.
    ///
    /// - Parameter environment: the shim's; TTRPC_ADDRESS is in it.
    /// - Returns: the path of the socket at which the shim of the container's pod listens.
    func start(_ container: String, namespace: String, bundle: String, environment: [String]) throws -> String {
        let shim = "\(Lab.binaries)/containerd-shim-martlet-v2"
        let input = try input(container, namespace, bundle)
        let version = self == .json ? ["MAX_SHIM_VERSION=4"] : ["MAX_SHIM_VERSION=2"]
        let outcome = try Command(
            "/bin/sh",
            [
                "-c",
                "cd '\(bundle)' && exec \(shim) -namespace \(namespace) -id \(container) -address none start <\(input)",
            ],
            environment: environment + version
        ).finish(within: .seconds(60))
        guard let address = try address(outcome.output), address.hasPrefix("unix://") else {
            throw LabError("the shim answers \(outcome.text) \(outcome.errorText)")
        }
        return String(address.dropFirst("unix://".count))
    }

    /// A file with what goes to standard input.
    private func input(_ container: String, _ namespace: String, _ bundle: String) throws -> String {
        guard self == .message else { return "/dev/null" }
        let parameters = BootstrapParams.with { ($0.instanceID, $0.namespace) = (container, namespace) }
        let path = "\(bundle)/parameters"
        guard let file = fopen(path, "w") else { throw LabError("open \(path): errno \(errno)") }
        defer { fclose(file) }
        let bytes: [UInt8] = try parameters.serializedBytes()
        guard fwrite(bytes, 1, bytes.count, file) == bytes.count else {
            throw LabError("write \(path): errno \(errno)")
        }
        return path
    }

    /// The address in what the shim has written; nil where it is in another form.
    private func address(_ output: [UInt8]) throws -> String? {
        switch self {
        case .address: return String(decoding: output, as: UTF8.self)
        case .json:
            let answer = try JSON.decode(JSONValue.self, from: output, file: "the shim's answer")
            guard answer["version"].int == 3, answer["protocol"].text == "ttrpc" else { return nil }
            return answer["address"].text
        case .message:
            guard let result = try? BootstrapResult(serializedBytes: output), result.version == 3 else { return nil }
            return result.protocol == "ttrpc" ? result.address : nil
        }
    }
}
