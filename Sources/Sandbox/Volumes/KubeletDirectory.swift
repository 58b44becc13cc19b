import LinuxSystem

/// A directory of a volume, by the paths that kubelet uses: `…/pods/UID/volumes/PLUGIN/NAME`, or for a part that a container
/// mounts (`subPath`) `…/pods/UID/volume-subpaths/NAME/CONTAINER/INDEX`.
///
/// Source: kubernetes, pkg/kubelet/kubelet_getters.go and pkg/volume/util/subpath.
struct KubeletDirectory: Equatable {
    enum Plugin: String {
        case emptyDir = "kubernetes.io~empty-dir"
        case configMap = "kubernetes.io~configmap"
        case secret = "kubernetes.io~secret"
        case projected = "kubernetes.io~projected"
        case downwardAPI = "kubernetes.io~downward-api"

        /// The name in a pod's manifest, for messages.
        var title: String {
            switch self {
            case .emptyDir: "emptyDir"
            case .configMap: "configMap"
            case .secret: "secret"
            case .projected: "projected"
            case .downwardAPI: "downwardAPI"
            }
        }
    }

    var plugin: Plugin
    /// The volume's name in the pod.
    var name: String
    /// The volume's own directory.
    var path: String

    /// - Parameter source: a bind mount's source, without symbolic links.
    init?(_ source: String) {
        var parts = source.split(separator: "/").map(String.init)
        if parts.count > 4, parts[parts.count - 4] == "volume-subpaths" {
            // Only an emptyDir is of interest here; parts of other volumes are shares.
            let name = parts[parts.count - 3]
            parts = parts.dropLast(4) + ["volumes", Plugin.emptyDir.rawValue, name]
        }
        guard parts.count > 3, parts[parts.count - 3] == "volumes",
            let plugin = Plugin(rawValue: parts[parts.count - 2])
        else { return nil }
        self.plugin = plugin
        name = parts[parts.count - 1]
        path = "/" + parts.joined(separator: "/")
    }
}
