/// Files that are to be copied out of or into a container.
public struct CopyPlan: Codable, Sendable, Equatable {
    public enum Direction: Codable, Sendable, Equatable {
        /// Packs an archive, which goes to the standard output.
        case pack(followsLink: Bool, isShallow: Bool)
        /// Unpacks the archive that comes from the standard input.
        case unpack(keepsOwners: Bool, Rule)
    }

    /// How the path of the destination is meant; see `CopyDestination.Rule`.
    public enum Rule: String, Codable, Sendable {
        case place, directory, madeDirectory
    }

    /// Absolute, in the container.
    public var path: String
    public var direction: Direction
    /// Of the container's first process.
    public var oomScoreAdjustment: Int

    public init(path: String, direction: Direction, oomScoreAdjustment: Int) {
        (self.path, self.direction, self.oomScoreAdjustment) = (path, direction, oomScoreAdjustment)
    }
}
