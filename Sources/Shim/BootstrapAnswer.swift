import SwiftProtobuf
import TaskAPI

/// How a shim says where it listens, in the form that the containerd reads which asks. Each later containerd reads the
/// earlier forms too.
enum BootstrapAnswer: Equatable {
    /// The address alone, which means version 2 of the Task service: containerd 1, and CRI-O, which reads nothing else.
    case address
    /// JSON, with version 3: containerd 2.0 to 2.2.
    case json
    /// A `BootstrapResult`: containerd 2.3, which has given a `BootstrapParams` on standard input.
    case message

    /// - Parameters:
    ///   - environment: the shim's.
    ///   - parameters: what containerd 2.3 gave.
    init(environment: [String: String], parameters: BootstrapParams?) {
        let version = environment["MAX_SHIM_VERSION"].flatMap { Int($0) } ?? 0
        self = parameters != nil ? .message : version >= 3 ? .json : .address
    }

    /// What goes to standard output.
    ///
    /// - Parameter address: `unix://PATH`.
    func bytes(_ address: String) throws -> [UInt8] {
        switch self {
        case .address: return Array(address.utf8)
        case .json: return Array(#"{"version":3,"address":"\#(address)","protocol":"ttrpc"}"#.utf8)
        case .message:
            let result = BootstrapResult.with {
                $0.version = 3
                $0.address = address
                $0.protocol = "ttrpc"
            }
            return try result.serializedBytes()
        }
    }
}

extension BootstrapParams {
    /// What containerd 2.3 writes to the standard input of a shim that it starts; nil for anything else. The options that
    /// earlier ones write there can be decoded as such a message too, but don't name the container.
    init?(input: [UInt8], id: String, namespace: String) {
        guard let message = try? BootstrapParams(serializedBytes: input), message.instanceID == id,
            message.namespace == namespace
        else { return nil }
        self = message
    }

    /// Whether the shim is to log in detail; 0 is info, and lower levels are more verbose.
    var wantsDebug: Bool { logLevel < 0 }
}
