import CLinux
import Glibc
public import LinuxSystem

/// What is to be packed: a file, a directory with all that is in it, or what is in a directory.
public struct CopySource: Sendable {
    /// The directory that has it, and its name there.
    let directory: SharedDescriptor
    let name: [UInt8]
    /// Where it is a directory: opened with O_PATH.
    let tree: SharedDescriptor?
    /// What it is called in the archive; `.` for what is in a directory.
    let archiveName: [UInt8]
    /// For messages.
    let path: String

    /// - Parameters:
    ///   - root: what absolute paths and links begin at; nothing leads out of it.
    ///   - path: absolute. With `/` at its end it must be a directory; with `/.` what is in it is meant.
    ///   - followsLink: whether a symbolic link at the path is followed; otherwise the link is copied. Links on the way are followed.
    /// - Throws: `ArchiveError.notFound` where nothing is there; `invalid` for a path that must be a directory and is none.
    public init(root: RootDirectory, path: String, followsLink: Bool) throws {
        let parsed = CopyPath(path)
        self.path = parsed.text
        archiveName = Array((parsed.isContents ? "." : parsed.name).utf8)
        do {
            let found: SharedDescriptor
            if followsLink || parsed.isDirectory {
                let place = try root.locate(parsed.text)
                guard let target = place.found else { throw ArchiveError.notFound(parsed.text) }
                (directory, name, found) = (place.directory, Array(place.name.utf8), target)
            } else {
                directory = try root.open(parsed.parent, O_PATH | O_DIRECTORY)
                name = Array(parsed.name.utf8)
                found = try openEntry(name, in: directory.raw, O_PATH | O_NOFOLLOW, as: parsed.text)
            }
            let type = try found.information().st_mode & S_IFMT
            let isDirectory = type == S_IFDIR
            if type == S_IFSOCK { throw ArchiveError.invalid("\(parsed.text): a socket can't be copied") }
            if parsed.isDirectory, !isDirectory { throw ArchiveError.invalid("\(parsed.text): not a directory") }
            tree = isDirectory ? found : nil
        } catch let error as SystemError where error.isMissing {
            throw ArchiveError.notFound(parsed.text)
        }
    }
}

extension SystemError {
    /// There is nothing at the path.
    var isMissing: Bool { errno == .noSuchFileOrDirectory || errno == .notDirectory }
}
