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
    /// The container's host name, where the other one has a name of its own too.
    private let hostname: String

    /// - Parameter directory: absolute path.
    init(_ directory: String, hostname: String) {
        (self.directory, self.hostname) = (directory, hostname)
        isOwn = access("\(directory)/config.json", F_OK) != 0
    }

    /// Copies configuration and root file system. What the file system can share of the files it does (reflink).
    ///
    /// - Throws: `SandboxError` where the directory has something already; what cp(1) says.
    func make(of record: ContainerRecord) async throws {
        guard isOwn else { return }
        let (directory, bundle, hostname) = (directory, record.bundle, hostname)
        try await onThread("bundle copy") {
            guard access("\(directory)/rootfs", F_OK) != 0 else {
                throw SandboxError.invalid("bundle: \(directory)/rootfs exists, and no config.json")
            }
            try makeDirectories(directory, mode: 0o700)
            let source = try Bundle(directory: bundle)
            try ExternalProgram("cp", package: "coreutils", for: "fork").run(
                ["-a", "--reflink=auto", "--", source.rootPath, "\(directory)/rootfs"])
            var spec = source.spec
            spec.root?.path = "rootfs"
            // What there can be only once: the new container has a network and a cgroup of its own.
            spec.linux?.cgroupsPath = ""
            if !spec.hostname.isEmpty { spec.hostname = hostname }
            for index in spec.linux?.namespaces.indices ?? 0..<0 { spec.linux?.namespaces[index].path = "" }
            try Data(JSON.encode(spec)).write(to: URL(filePath: "\(directory)/config.json"))
        }
    }

    /// Removes the copy.
    func discard() {
        if isOwn { try? FileManager.default.removeItem(atPath: directory) }
    }
}
