import AgentContract
import OCISpec
import Sandbox
import SwiftProtobuf
import TaskAPI

/// What `-info` answers.
public enum ShimInfo {
    /// A `RuntimeInfo` message (api/types/introspection.proto of containerd).
    public static func bytes() throws -> [UInt8] {
        var features = Features.martlet
        features.annotations["io.martlet.version"] = martletVersion
        let info = try IntrospectionRuntimeInfo.with {
            $0.name = "io.containerd.martlet.v2"
            $0.version = .with { $0.version = martletVersion }
            $0.annotations[mountsKey] = mounts
            $0.features = try .with {
                $0.typeURL = featuresType
                $0.value = try JSON.encode(features).withUnsafeBytes { .init($0) }
            }
        }
        return try info.serializedBytes()
    }

    /// What the mount manager of containerd 2.2 and later leaves to the runtime (docs/mounts.md of containerd): the types that become
    /// disks, and what names or changes these.
    private static let mountsKey = "containerd.io/runtime-allow-mounts"
    private static let mounts = "erofs,loop,format/*,mkdir/*"

    /// The name under which containerd knows the specification's Features, whose bytes are JSON (client/client.go of
    /// containerd, `typeurl.Register`).
    static let featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
}
