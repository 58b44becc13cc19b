/// What a checkpoint has, for whoever restores it.
package struct CheckpointSummary: Sendable, Equatable {
    package struct Container: Sendable, Equatable {
        /// Its id when it was saved.
        package var id: String
        /// The directory of its bundle.
        package var bundle: String
    }

    /// The one that the pod was made with comes first.
    package var containers: [Container]

    /// - Parameter directory: absolute path.
    /// - Throws: `SandboxError` where there is no checkpoint, or one that this version can't read.
    package init(directory: String) throws {
        containers = try CheckpointDirectory(path: directory).read().containers.map {
            Container(id: $0.id, bundle: $0.bundle)
        }
    }
}
