import CLinux
import Glibc
import LinuxSystem

/// The content that kubelet's AtomicWriter has published in a directory: the link `..data` names a directory beside it, and
/// other links lead into that directory.
///
/// Source: kubernetes, pkg/volume/util/atomic_writer.go.
struct PublishedContent: Sendable, Equatable {
    /// Why a volume can't be copied.
    enum CopyError: Error, CustomStringConvertible {
        case tooLarge(limit: Int)
        case layout(String)

        var description: String {
            switch self {
            case .tooLarge(let limit): "it has more than the \(limit) bytes that volumes.copy_limit_mib allows"
            case .layout(let what): "it does not have the layout of kubelet's volumes (\(what))"
            }
        }
    }

    /// The limit for all links together, bytes: they are sent in one request.
    private static let linkLimit = 1 << 20
    /// How often content that changes is read.
    private static let maximumAttempts = 20

    /// The volume's own directory.
    var root: VolumeEntry
    /// The name of the directory that `..data` names.
    var name: String
    /// The directory of that name and all that is in it, with relative paths. The directory itself comes first.
    var files: [VolumeEntry]
    /// The links beside `..data`.
    var links: [VolumeEntry]

    /// Reads the content consistently: either before or after an update of kubelet.
    ///
    /// - Throws: `CopyError`; `SystemError`.
    static func read(_ path: String, limit: Int) throws -> PublishedContent {
        let directory = try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        var missing = SystemError("read", path, errno: .noSuchFileOrDirectory)
        for attempt in 1...maximumAttempts {
            do {
                let content = try readOnce(directory.raw, path, limit: limit)
                if try published(directory.raw) == content.name { return content }
            } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
                // kubelet removed it meanwhile: other content is published now.
                missing = error
            }
            usleep(useconds_t(attempt * 1000))
        }
        throw missing
    }

    private static func readOnce(_ directory: Int32, _ path: String, limit: Int) throws -> PublishedContent {
        let name = try published(directory)
        var facts = stat()
        try check("fstat", path, fstat(directory, &facts))
        let inside: OwnedDescriptor
        do throws(SystemError) {
            inside = try OwnedDescriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory)
        } catch {
            if error.errno == .noSuchFileOrDirectory { throw error }
            throw CopyError.layout("..data names \(name): \(error.errno)")
        }
        do {
            let files = try VolumeTree.read(inside.raw, "\(path)/\(name)", limit: limit)
            return PublishedContent(
                root: VolumeEntry("", facts), name: name, files: files, links: try links(directory, path))
        } catch let error as VolumeTree.TooLarge {
            throw CopyError.tooLarge(limit: error.limit)
        }
    }

    /// The directory that `..data` names: one beside it, whose name begins with two dots.
    private static func published(_ directory: Int32) throws -> String {
        guard let target = linkTarget("..data", at: directory) else { throw CopyError.layout("no link ..data") }
        let name = String(decoding: target, as: UTF8.self)
        guard name.hasPrefix(".."), name.count > 2, !name.contains("/"), Array(name.utf8) == target else {
            throw CopyError.layout("..data leads to \(name)")
        }
        return name
    }

    private static func links(_ directory: Int32, _ path: String) throws -> [VolumeEntry] {
        var links: [VolumeEntry] = []
        for name in try directoryNames(directory, path).sorted() where !name.hasPrefix("..") {
            var facts = stat()
            try check("stat", "\(path)/\(name)", fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW))
            guard let target = linkTarget(name, at: directory) else {
                throw CopyError.layout("\(name) is not a link")
            }
            var link = VolumeEntry(name, facts)
            link.data = target
            links.append(link)
        }
        if links.reduce(0, { $0 + $1.size }) > linkLimit { throw CopyError.tooLarge(limit: linkLimit) }
        return links
    }
}
