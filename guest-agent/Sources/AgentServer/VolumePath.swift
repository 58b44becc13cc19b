/// Where something is in a volume: a directory, which is the volume's own where it is empty, and a name in it.
struct VolumePath {
    var directory: String
    var name: String

    /// nil for what is not a relative path, or leads up.
    init?(_ path: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard let last = parts.last, !parts.contains(where: { $0.isEmpty || $0 == "." || $0 == ".." }) else {
            return nil
        }
        directory = parts.dropLast().joined(separator: "/")
        name = String(last)
    }
}
