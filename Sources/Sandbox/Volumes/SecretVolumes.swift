import Glibc
import OCISpec

extension Spec {
    /// The volumes with secrets of Kubernetes that a container mounts, for messages: `secret token`. A projected volume has the pod's
    /// token.
    package var secretVolumes: [String] {
        mounts.filter(\.isBind).compactMap { mount in
            guard let resolved = realpath(mount.source, nil) else { return nil }
            defer { free(resolved) }
            return KubeletDirectory.secret(String(cString: resolved))
        }
    }
}

extension KubeletDirectory {
    /// The plugins of volumes that have secrets.
    private static let secretPlugins: [Plugin] = [.secret, .projected]

    /// The volume with secrets that a bind mount is of, as a whole or a part of it; nil: it is of none.
    static func secret(_ source: String) -> String? {
        guard let directory = KubeletDirectory(source) else { return nil }
        if secretPlugins.contains(directory.plugin) { return "\(directory.plugin.title) \(directory.name)" }
        // A part's path does not tell of which plugin its volume is.
        guard directory.path != source else { return nil }
        let volumes = directory.path.split(separator: "/").dropLast(2).joined(separator: "/")
        let plugin = secretPlugins.first { access("/\(volumes)/\($0.rawValue)/\(directory.name)", F_OK) == 0 }
        return plugin.map { "\($0.title) \(directory.name)" }
    }
}
