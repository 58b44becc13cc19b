import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Sandbox

/// The bundle of a forked container: where there is none yet, a copy of the other one's.
struct BundleCopy: Sendable {
    private let directory: String
    /// Whether there was no bundle.
    private let isOwn: Bool

    private var rootfs: String { "\(directory)/rootfs" }
    private var configuration: String { "\(directory)/config.json" }
    /// Is there, and locked, while the copy is being made.
    private var marker: String { "\(directory)/.copy" }

    /// Copies configuration and root file system, unless there is a bundle. What the file system can share of the files it does (reflink).
    /// A half copy, whose command was killed, is removed before.
    ///
    /// - Parameters:
    ///   - directory: absolute path.
    ///   - record: of the container that is copied.
    ///   - hostname: the new container's, where the other one has a name of its own too.
    /// - Throws: `SandboxError` where the directory has something already, or another command copies there; what cp(1) says. Nothing is
    ///   left of the copy then.
    init(_ directory: String, of record: ContainerRecord, hostname: String) async throws {
        self.directory = directory
        isOwn = access("\(directory)/config.json", F_OK) != 0
        if !isOwn { return }
        let copy = self
        try await onThread("bundle copy") { try copy.make(from: record.bundle, hostname) }
    }

    private func make(from bundle: String, _ hostname: String) throws {
        guard access(rootfs, F_OK) != 0 || access(marker, F_OK) == 0 else {
            throw SandboxError.invalid("bundle: \(rootfs) exists, and no config.json")
        }
        try makeDirectories(directory, mode: 0o700)
        let lock = SharedDescriptor(try OwnedDescriptor.open(marker, O_WRONLY | O_CREAT, mode: 0o600))
        defer { withExtendedLifetime(lock) {} }
        guard flock(lock.raw, LOCK_EX | LOCK_NB) == 0 else {
            throw SandboxError.wrongState("bundle: another command copies to \(directory)")
        }
        do {
            try? FileManager.default.removeItem(atPath: rootfs)
            let source = try Bundle(directory: bundle)
            try ExternalProgram("cp", package: "coreutils", for: "fork").run(
                ["-a", "--reflink=auto", "--", source.rootPath, rootfs])
            var spec = source.spec
            spec.root?.path = "rootfs"
            // What there can be only once: the new container has a network and a cgroup of its own.
            spec.linux?.cgroupsPath = ""
            if !spec.hostname.isEmpty { spec.hostname = hostname }
            for index in spec.linux?.namespaces.indices ?? 0..<0 { spec.linux?.namespaces[index].path = "" }
            try replaceFile(configuration, by: "\(directory)/.config.json", with: JSON.encode(spec))
            unlink(marker)
        } catch {
            discard()
            throw error
        }
    }

    /// Removes the copy.
    func discard() {
        guard isOwn else { return }
        try? FileManager.default.removeItem(atPath: rootfs)
        for file in [configuration, "\(directory)/.config.json", marker] { unlink(file) }
        rmdir(directory)
    }
}
