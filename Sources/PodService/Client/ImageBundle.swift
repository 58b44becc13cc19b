import FoundationEssentials
import Glibc
import LinuxSystem
public import Logging
import OCISpec
import Sandbox

/// A bundle that is made of a container image: skopeo gets the image, umoci unpacks it.
public struct ImageBundle: Sendable {
    /// The bundle's; an absolute path.
    public var directory: String { "\(work)/bundle" }
    /// Has the image and the bundle; removed by `remove`.
    private let work: String
    /// Held as long as the directory is used.
    private let lock: SharedDescriptor

    private static let prefix = "martlet-image."

    private init(in parent: String) throws {
        Self.removeAbandoned(in: parent)
        var name = Array("\(parent)/\(Self.prefix)XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else { throw SystemError.last("mkdtemp", parent) }
        work = String(decoding: name.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        lock = SharedDescriptor(try OwnedDescriptor.open(work, O_RDONLY | O_DIRECTORY))
        try check("flock", work, flock(lock.raw, LOCK_EX | LOCK_NB))
    }

    /// Removes what commands have left that were killed.
    private static func removeAbandoned(in parent: String) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? [] where name.hasPrefix(prefix) {
            let path = "\(parent)/\(name)"
            var facts = stat()
            // One that has just been made is not locked yet.
            guard let lock = try? OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY), fstat(lock.raw, &facts) == 0,
                time(nil) - facts.st_mtim.tv_sec > 10, flock(lock.raw, LOCK_EX | LOCK_NB) == 0
            else { continue }
            try? FileManager.default.removeItem(atPath: path)
        }
    }

    /// Makes the bundle.
    ///
    /// - Parameters:
    ///   - image: as skopeo names it: `oci:DIR[:TAG]`, `docker-archive:FILE`, `docker://NAME`.
    ///   - parent: where its directory is made.
    ///   - command: in place of the image's; empty: the image's.
    ///   - hasTerminal: whether the process gets a terminal.
    /// - Throws: `SandboxError` for a bad name, a program that is missing, or what that said. Nothing is left then.
    public static func make(
        image: String, in parent: String = "/var/tmp", command: [String], hasTerminal: Bool, logger: Logger
    ) async throws -> ImageBundle {
        let source = try Source(image)
        let skopeo = try source.isLayout ? nil : ExternalProgram("skopeo", package: "skopeo", for: "--image")
        let umoci = try ExternalProgram("umoci", package: "umoci", for: "--image")
        return try await onThread("image") {
            let bundle = try ImageBundle(in: parent)
            do {
                var layout = source
                if let skopeo {
                    logger.info("\(image) is copied")
                    layout = Source(directory: "\(bundle.work)/image")
                    try skopeo.run(["copy", "--quiet", image, layout.name])
                }
                logger.info("\(image) is unpacked")
                try umoci.run(["unpack", "--image", layout.layout, bundle.directory])
                try bundle.edit(command: command, hasTerminal: hasTerminal)
            } catch {
                bundle.remove()
                throw error
            }
            return bundle
        }
    }

    /// Removes the bundle, and what has been written to its root file system.
    public func remove() { try? FileManager.default.removeItem(atPath: work) }

    /// umoci writes a configuration for runc that is made for any container.
    private func edit(command: [String], hasTerminal: Bool) throws {
        let file = "\(directory)/config.json"
        var spec = try JSON.decode(Spec.self, from: Array(readText(file).utf8), file: file)
        if !command.isEmpty { spec.process?.args = command }
        spec.process?.terminal = hasTerminal
        try replaceFile(file, by: "\(file).new", with: JSON.encode(spec))
    }

    /// Where an image is.
    private struct Source {
        /// As skopeo has it.
        let name: String
        /// Whether it is a directory of the OCI's image layout.
        let isLayout: Bool
        /// Of one that is: `DIR:TAG`.
        let layout: String

        init(directory: String) {
            layout = "\(directory):latest"
            name = "oci:\(layout)"
            isLayout = true
        }

        init(_ image: String) throws(SandboxError) {
            let parts = image.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, !parts[1].isEmpty else {
                throw .invalid("--image \(image): no transport; docker://\(image) is an image of a registry")
            }
            guard ["oci", "docker-archive", "docker", "oci-archive", "dir"].contains(parts[0]) else {
                throw .invalid("--image \(image): \(parts[0]) is none of oci, oci-archive, docker-archive, docker, dir")
            }
            name = image
            isLayout = parts[0] == "oci"
            let hasTag = parts[1].split(separator: "/").last?.contains(":") == true
            layout = hasTag ? parts[1] : "\(parts[1]):latest"
            guard
                !isLayout
                    || access("\(layout[..<(layout.lastIndex(of: ":") ?? layout.endIndex)])/index.json", F_OK) == 0
            else { throw .invalid("--image \(image): no index.json in the directory") }
        }
    }
}
