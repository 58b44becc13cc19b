import FoundationEssentials
import Glibc
import LinuxSystem

/// A container image with busybox only, which is built here, so that pods need no registry. Its default command sleeps.
public struct BusyboxImage: Sendable {
    public static let name = "docker.io/library/martlet-bench:latest"

    private let directory: String

    /// - Parameter directory: an empty one, to work in.
    public init(directory: String) { self.directory = directory }

    /// Writes the image in the format of `docker save`.
    ///
    /// - Parameter busybox: the path of a static busybox.
    /// - Returns: the archive's path.
    public func archive(busybox: String) throws -> String {
        let files = FileManager.default
        let root = "\(directory)/root"
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            try files.createDirectory(atPath: "\(root)/\(name)", withIntermediateDirectories: true)
        }
        try files.copyItem(atPath: busybox, toPath: "\(root)/bin/busybox")
        try files.createSymbolicLink(atPath: "\(root)/bin/sleep", withDestinationPath: "busybox")
        _ = try HostCommand.run("tar", "-C", root, "--owner=0", "--group=0", "-cf", "\(directory)/layer.tar", ".")
        let config = """
            {"architecture": "amd64", "os": "linux",
             "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
             "rootfs": {"type": "layers", "diff_ids": ["sha256:\(try digest("\(directory)/layer.tar"))"]}}
            """
        try write(config, "config.json")
        try write(
            #"[{"Config": "config.json", "RepoTags": ["\#(Self.name)"], "Layers": ["layer.tar"]}]"#, "manifest.json")
        let archive = "\(directory)/image.tar"
        _ = try HostCommand.run("tar", "-C", directory, "-cf", archive, "manifest.json", "config.json", "layer.tar")
        return archive
    }

    private func write(_ text: String, _ name: String) throws {
        try Data(text.utf8).write(to: URL(filePath: "\(directory)/\(name)"))
    }

    private func digest(_ path: String) throws -> Substring {
        try HostCommand.run("sha256sum", path).first?.split(separator: " ").first ?? ""
    }
}
