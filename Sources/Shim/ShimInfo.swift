import AgentContract
import Sandbox
import SwiftProtobuf
import TaskAPI

/// What `-info` answers.
public enum ShimInfo {
    /// A `RuntimeInfo` message (api/types/introspection.proto of containerd).
    public static func bytes() throws -> [UInt8] {
        let info = IntrospectionRuntimeInfo.with {
            $0.name = "io.containerd.martlet.v2"
            $0.version = .with { $0.version = martletVersion }
        }
        return try info.serializedBytes()
    }
}
