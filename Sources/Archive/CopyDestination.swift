import CLinux
import Glibc
public import LinuxSystem

/// Where an archive is unpacked.
public struct CopyDestination: Sendable {
    /// How the destination's path is meant.
    public enum Rule: Sendable, Equatable {
        /// A directory; the archive's entries go into it by their names.
        /// - `isMade`: it and the directories above it are made where they are missing.
        case directory(isMade: Bool)
        /// As in cp(1) and `docker cp`: what the archive's first entry is, with all that is below it, goes into the path where that is a
        /// directory, and gets the path's name where nothing is there, or a file where one is copied.
        case place
    }

    let directory: SharedDescriptor
    /// What the first component of the archive's names becomes; nil: it stays.
    let renamed: (from: [UInt8], to: [UInt8])?
    /// The directory was made for this archive, which says what owner, mode and time it gets.
    let isNew: Bool

    /// - Parameters:
    ///   - root: what absolute paths and links begin at; nothing leads out of it.
    ///   - path: absolute. Links are followed.
    ///   - first: the archive's first entry; nil: the archive has none.
    /// - Throws: `ArchiveError.notFound` and `invalid`, where the path does not fit the rule or the entry.
    public init(root: RootDirectory, path: String, _ rule: Rule, first: TarEntry?) throws {
        let parsed = CopyPath(path)
        do {
            switch rule {
            case .directory(let isMade):
                let directory =
                    try isMade ? root.makeDirectories(parsed.text) : root.open(parsed.text, O_PATH | O_DIRECTORY)
                self.init(directory, renamed: nil, isNew: false)
            case .place: self = try Self.place(root, parsed, first)
            }
        } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
            throw ArchiveError.notFound(parsed.text)
        } catch let error as SystemError where error.errno == .notDirectory {
            throw ArchiveError.invalid("\(parsed.text): not a directory")
        }
    }

    private init(_ directory: SharedDescriptor, renamed: (from: [UInt8], to: [UInt8])?, isNew: Bool) {
        (self.directory, self.renamed, self.isNew) = (directory, renamed, isNew)
    }

    private static func place(_ root: RootDirectory, _ path: CopyPath, _ first: TarEntry?) throws -> CopyDestination {
        let place = try root.locate(path.text)
        let isFromDirectory = first?.kind == .directory
        if let found = place.found {
            switch try found.information().st_mode & S_IFMT {
            case S_IFDIR: return CopyDestination(found, renamed: nil, isNew: false)
            case _ where path.isDirectory: throw ArchiveError.invalid("\(path.text): not a directory")
            case S_IFREG where !isFromDirectory: break
            case S_IFREG: throw ArchiveError.invalid("\(path.text): a directory can't be copied to a file")
            default: throw ArchiveError.invalid("\(path.text): neither a file nor a directory")
            }
        } else if path.isDirectory, !isFromDirectory {
            throw ArchiveError.notFound(path.text)
        }
        guard let first else { throw ArchiveError.malformed("it has no entry") }
        let name = Array(place.name.utf8)
        guard let from = try first.components().first else {
            // What is in a directory: it goes into a new one.
            try check("mkdir", path.text, name.withCName { mkdirat(place.directory.raw, $0, 0o755) })
            let made = try openEntry(
                name, in: place.directory.raw, O_PATH | O_DIRECTORY | O_NOFOLLOW, as: path.text)
            return CopyDestination(made, renamed: nil, isNew: true)
        }
        return CopyDestination(place.directory, renamed: (from, name), isNew: false)
    }

    /// The components of an entry's path below the destination.
    ///
    /// - Throws: `ArchiveError.malformed` for one that is not below what is copied.
    func components(_ name: [UInt8]) throws(ArchiveError) -> [[UInt8]] {
        var parts = try TarEntry.components(name)
        guard let renamed else { return parts }
        guard parts.first == renamed.from else {
            throw .malformed("\(shown(name)): not below \(shown(renamed.from)), which is copied")
        }
        parts[0] = renamed.to
        return parts
    }
}
